"""What a request of Ray Serve asks for, besides what the native module finds in its call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from llmd_sched._core import _read_call

Finder = Callable[[Sequence[Any], Mapping[str, Any]], Any]
"""``find(args, kwargs)`` of the call; returns token ids, a string, ``None`` where there is no
prompt, or a mapping with ``tokens`` or ``text`` and any of :class:`llmd_sched.RequestOptions`."""


class Found(NamedTuple):
    """The prompt, as tokens or as text or not known, and what is said about it."""

    tokens: Any
    text: str | None
    options: dict[str, Any]


def asked(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """What the router finds in a call of a handle: ``tokens`` or ``text`` of the prompt, neither
    where it sees none, and options as :class:`llmd_sched.RequestOptions` names them.

    A payload is a mapping, a parsed model or a namespace. The first one with a prompt counts:
    ``prompt_token_ids``, or ``messages`` (roles, contents and tool calls, the text that
    :class:`llmd_sched.RequestBody` finds in the bytes of such a request: joined by the character
    ``"\\x1e"``), or ``prompt`` or ``input``, each of which is text, token ids or a list of several,
    of which the first counts, or messages. The keyword ``request_token_ids`` goes before all of
    those. What can be iterated only once is left to the engine. The head of an HTTP request gives
    the options of :func:`llmd_sched.request_options`.

    Raises :class:`llmd_sched.PromptError` for headers that cannot be, ``TypeError`` for messages
    that are no list.

    >>> from llmd_sched.ray import asked
    >>> talk = [{"role": "user", "content": "hello"}]
    >>> asked({"messages": talk, "max_tokens": 12, "temperature": 0.5})
    {'max_output_tokens': 12, 'text': 'user\\x1ehello'}
    """
    return _read_call(args, kwargs)


def found(answer: Any, options: dict[str, Any]) -> Found:
    """What a user's function found, over ``options``."""
    if isinstance(answer, Mapping):
        rest = {name: value for name, value in answer.items() if name not in ("tokens", "text")}
        return Found(answer.get("tokens"), answer.get("text"), {**options, **rest})
    if answer is None or isinstance(answer, str):
        return Found(None, answer, options)
    return Found(answer, None, options)


def with_ids(options: dict[str, Any], metadata: Any) -> dict[str, Any]:
    """The options of a request with the ids of its session and adapter, where Ray knows them."""
    # Ray 2.50 has no session ids.
    known = {
        "session_id": getattr(metadata, "session_id", ""),
        "lora": metadata.multiplexed_model_id,
    }
    return {**options, **{name: value for name, value in known.items() if value}}
