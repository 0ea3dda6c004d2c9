"""What a call asks for, said the short way: the oracle of what the native module finds in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from llmd_sched import request_options

# Options, and the fields that say them: the first counts.
OPTIONS = {
    "max_output_tokens": ("max_completion_tokens", "max_tokens", "max_output_tokens"),
    "cache_salt": ("cache_salt",),
    "priority": ("priority",),
}
Get = Callable[[str], Any]


def asked(args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """As ``llmd_sched.ray.asked(*args, **kwargs)``."""
    said: dict[str, Any] = {}
    tokens = kwargs.get("request_token_ids")
    prompt = {} if tokens is None else {"tokens": tokens}
    for payload in (*args, *kwargs.values()):
        if payload is tokens or (get := reader(payload)) is None:
            continue
        if headers := headers_of(payload):
            said |= request_options(headers)
            continue
        for option, fields in OPTIONS.items():
            if values := [it for it in map(get, fields) if isinstance(it, (int, str))]:
                said[option] = values[0]
        if prompt := prompt or prompt_of(get):
            break
    return said | prompt


def reader(payload: Any) -> Get | None:
    if isinstance(payload, Mapping):
        return payload.get
    if payload is None or isinstance(payload, (str, bytes, bytearray, int, float, list, tuple)):
        return None
    return lambda name: getattr(payload, name, None)


def prompt_of(get: Get) -> dict[str, Any]:
    if (tokens := get("prompt_token_ids")) is not None:
        return {"tokens": tokens}
    if (messages := get("messages")) is not None:
        return conversation(messages)
    for name in ("prompt", "input"):
        prompt = get(name)
        if isinstance(prompt, str):
            return {"text": prompt}
        if isinstance(prompt, np.ndarray):
            return {"tokens": prompt}
        if isinstance(prompt, Sequence) and len(prompt) > 0:
            first = prompt[0]
            if isinstance(first, int):
                return {"tokens": prompt}
            if isinstance(first, str):
                return {"text": first}
            return {"tokens": first} if isinstance(first, Sequence) else conversation(prompt)
    return {}


def conversation(messages: Iterable[Any]) -> dict[str, Any]:
    if iter(messages) is messages:
        return {}
    parts: list[str] = []
    for message in messages:
        get = reader(message) or (lambda _name: None)
        role = get("role")
        parts.append(role if isinstance(role, str) else "")
        content = get("content")
        if isinstance(content, str):
            parts.append(content)
        elif (
            isinstance(content, Iterable)
            and not isinstance(content, Mapping)
            and iter(content) is not content
        ):
            parts += [part_text(part) for part in content]
        if calls := shown(get("tool_calls")):
            parts.append(calls)
    return {"text": "\x1e".join(parts)}


def part_text(part: Any) -> str:
    get = reader(part)
    text = get("text") if get else None
    return text if isinstance(text, str) else shown(part)


def shown(value: Any) -> str:
    """Of what is no text, its JSON without spaces, and with its names sorted."""
    if not value or isinstance(value, str):
        return value or ""
    try:
        plain = dict(value) if isinstance(value, Mapping) else value
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except TypeError:
        return str(value)


def headers_of(payload: Any) -> Any:
    scope = getattr(payload, "asgi_scope", None) or getattr(payload, "scope", None)
    return scope.get("headers") if isinstance(scope, Mapping) else None
