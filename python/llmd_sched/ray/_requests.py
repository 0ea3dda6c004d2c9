"""What a request of Ray Serve asks for: its prompt and options, wherever Ray hands them over.

Handles pass whatever the application passes; ``ray.serve.llm`` passes parsed OpenAI requests, or
with direct streaming a namespace of the body and ``request_token_ids``; the HTTP proxy passes only
the head of the request, whose headers still count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from llmd_sched._core import request_options


class Asked(NamedTuple):
    """The prompt, as tokens or as text or not known, and what is said about it."""

    tokens: Any
    text: str | None
    options: dict[str, Any]


Finder = Callable[[Sequence[Any], Mapping[str, Any]], Any]
"""``find(args, kwargs)`` of the call; returns token ids, a string, ``None`` where there is no
prompt, or a mapping with ``tokens`` or ``text`` and any of :class:`llmd_sched.RequestOptions`."""

# A field of the payload -> an option of the request.
OPTIONS = (
    ("max_completion_tokens", "max_output_tokens"),
    ("max_tokens", "max_output_tokens"),
    ("max_output_tokens", "max_output_tokens"),
    ("cache_salt", "cache_salt"),
    ("priority", "priority"),
)
# Between the parts of a conversation. A text that has it can look like another conversation, which
# makes an estimate of what a replica holds wrong, and nothing else.
PART = "\x1e"


def asked(pending: Any, usual: Mapping[str, Any], find: Finder | None) -> Asked:
    """What a ``PendingRequest`` asks for, where ``usual`` are the options it gets unless it says
    otherwise.
    """
    options = dict(usual)
    metadata, args, kwargs = pending.metadata, pending.args, pending.kwargs
    if session := getattr(metadata, "session_id", ""):
        options["session_id"] = session
    if adapter := metadata.multiplexed_model_id:
        options["lora"] = adapter
    if find is not None:
        return found(find(args, kwargs), options)
    tokens = kwargs.get("request_token_ids") if kwargs else None
    text = None
    for payload in (*args, *kwargs.values()) if kwargs else args:
        if payload is tokens and tokens is not None:
            continue
        get = reader(payload)
        if get is None:
            continue
        # A body has no headers; to ask it for some costs as much as all the rest.
        if type(payload) is not dict and (headers := headers_of(payload)):
            options.update(request_options(headers))
            continue
        for name, option in OPTIONS:
            if (value := get(name)) is not None and isinstance(value, (int, str)):
                options[option] = value
        if tokens is None:
            tokens, text = prompt_of(get)
        if tokens is not None or text is not None:
            break
    return Asked(tokens, text, options)


def found(answer: Any, options: dict[str, Any]) -> Asked:
    """What a user's function found."""
    if isinstance(answer, Mapping):
        rest = {name: value for name, value in answer.items() if name not in ("tokens", "text")}
        return Asked(answer.get("tokens"), answer.get("text"), {**options, **rest})
    if answer is None or isinstance(answer, str):
        return Asked(None, answer, options)
    return Asked(answer, None, options)


def reader(payload: Any) -> Callable[[str], Any] | None:
    """How to read a field of a payload; ``None`` where it is nothing that has fields."""
    # A dict is known by its type at a tenth of what it costs to ask whether it is a mapping.
    if type(payload) is dict or isinstance(payload, Mapping):
        return payload.get
    if payload is None or isinstance(payload, (str, bytes, int, float, list, tuple)):
        return None
    return lambda name: getattr(payload, name, None)


def prompt_of(get: Callable[[str], Any]) -> tuple[Any, str | None]:
    """Tokens and text of an OpenAI request: of chat, completions or responses."""
    if (tokens := get("prompt_token_ids")) is not None:
        return tokens, None
    if (messages := get("messages")) is not None:
        return None, conversation(messages)
    for name in ("prompt", "input"):
        prompt = get(name)
        if isinstance(prompt, str):
            return None, prompt
        if isinstance(prompt, np.ndarray):
            return prompt, None
        if isinstance(prompt, Sequence) and len(prompt) > 0:
            first = prompt[0]
            if isinstance(first, int):
                return prompt, None
            if isinstance(first, str):
                return None, first
            if isinstance(first, Sequence):
                return first, None
            return None, conversation(prompt)
    return None, None


def conversation(messages: Iterable[Any]) -> str:
    """A conversation as text that only grows at its end when the conversation does."""
    parts: list[str] = []
    for message in messages:
        get = message.get if type(message) is dict else reader(message) or nothing
        role = get("role")
        parts.append(role if isinstance(role, str) else str(role or ""))
        content = get("content")
        if isinstance(content, str):
            parts.append(content)
        elif isinstance(content, Iterable):
            parts.extend(part_text(part) for part in content)
        if calls := get("tool_calls"):
            parts.append(str(calls))
    return PART.join(parts)


def part_text(part: Any) -> str:
    """A part of a message's content: its text, or what it refers to."""
    if isinstance(part, str):
        return part
    text = (reader(part) or nothing)("text")
    return text if isinstance(text, str) else str(part)


def nothing(_name: str) -> None:
    """The field of what has none."""


def headers_of(payload: Any) -> dict[str, str] | None:
    """The headers, where a payload is the head of an HTTP request."""
    scope = getattr(payload, "asgi_scope", None) or getattr(payload, "scope", None)
    if not isinstance(scope, Mapping):
        return None
    pairs = scope.get("headers", ())
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in pairs}
