"""What is found in the call of a Ray Serve handle, and that it is routed as what was found."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import call_reference
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmd_sched import LlmdError, NoEndpointError, PromptError, Router
from llmd_sched.ray import asked

PART = "\x1e"
MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "hello"}]},
]
TALK = PART.join(["system", "be brief", "user", "hello"])
Call = tuple[tuple[Any, ...], dict[str, Any]]


def call(*args: Any, **kwargs: Any) -> Call:
    return args, kwargs


@pytest.mark.parametrize(
    ("of", "prompt"),
    [
        (call({"messages": MESSAGES}), {"text": TALK}),
        (call(SimpleNamespace(messages=MESSAGES)), {"text": TALK}),
        (call(UserDict(messages=MESSAGES)), {"text": TALK}),
        (call(request={"prompt": "once"}), {"text": "once"}),
        (call({"prompt": ["one", "two"]}), {"text": "one"}),
        (call({"prompt": [1, 2, 3]}), {"tokens": [1, 2, 3]}),
        (call({"prompt": [[1, 2], [3]]}), {"tokens": [1, 2]}),
        (call({"input": "respond"}), {"text": "respond"}),
        (call({"input": MESSAGES}), {"text": TALK}),
        (call({"prompt_token_ids": [7], "prompt": "seven"}), {"tokens": [7]}),
        (call({"messages": MESSAGES}, request_token_ids=[5, 6]), {"tokens": [5, 6]}),
        (call({"stop": "now"}, {"prompt": "later"}), {"text": "later"}),
        (call("plain", 3, None), {}),
        (call(), {}),
        (call({"prompt": []}), {}),
        (call({"messages": None}), {}),
        (call({"messages": ["bare", {"role": None, "content": 3}]}), {"text": PART}),
    ],
)
def test_a_prompt_is_found_in_every_shape(of: Call, prompt: dict[str, Any]) -> None:
    args, kwargs = of
    assert asked(*args, **kwargs) == prompt


def test_a_numpy_prompt_is_passed_as_it_is() -> None:
    prompt = np.arange(8, dtype=np.uint32)
    assert asked({"prompt": prompt})["tokens"] is prompt


def test_a_longer_conversation_begins_as_the_shorter_one() -> None:
    longer = [*MESSAGES, {"role": "assistant", "content": "hi", "tool_calls": [{"id": 1}]}]
    assert asked({"messages": longer})["text"] == PART.join([TALK, "assistant", "hi", '[{"id":1}]'])


def test_what_can_be_read_once_is_left_to_the_engine() -> None:
    parts = iter([{"type": "text", "text": "hello"}])
    assert asked({"messages": [{"role": "user", "content": parts}]}) == {"text": "user"}
    assert len(list(parts)) == 1
    messages = iter(MESSAGES)
    assert asked({"messages": messages}) == {}
    assert list(messages) == MESSAGES


def test_options_come_from_the_payload_and_headers() -> None:
    head = SimpleNamespace(
        asgi_scope={"headers": [(b"x-session-id", b"s9"), (b"x-slo-ttft-ms", b"250")]}
    )
    assert asked(head) == {"ttft_slo_ms": 250.0, "session_id": "s9"}
    body = {"prompt": "p", "max_tokens": 12, "max_completion_tokens": 7, "cache_salt": "t1"}
    assert asked(head, body) == {
        "ttft_slo_ms": 250.0,
        "session_id": "s9",
        "max_output_tokens": 7,
        "cache_salt": "t1",
        "text": "p",
    }


# Strings of every width, in and out of UTF-8's single bytes, some long enough to fill blocks.
texts = st.text(st.sampled_from("ab \x1e\u00e9\u4e2d\U0001f600"), max_size=200)
token_ids = st.lists(st.integers(0, 2**32 - 1), max_size=80)
fields = st.one_of(st.none(), st.booleans(), st.integers(0, 9), texts)


def shaped(items: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[Any]:
    """The same as a dict, as another mapping, and as an object."""
    return st.one_of(
        items, items.map(UserDict), items.map(lambda it: SimpleNamespace(**it)), fields
    )


parts = shaped(st.fixed_dictionaries({}, optional={"type": texts, "text": fields}))
messages = st.lists(
    shaped(
        st.fixed_dictionaries(
            {},
            optional={
                "role": fields,
                "content": st.one_of(fields, st.lists(parts, max_size=3), st.tuples(parts)),
                "tool_calls": st.one_of(fields, st.lists(st.just({"id": "c"}), max_size=2)),
            },
        )
    ),
    max_size=4,
)
# What says nothing is no option; a value that cannot be is another test's.
limits = st.one_of(st.none(), st.integers(0, 9), st.floats(0, 9), st.just([]))
prompts = st.one_of(
    fields,
    token_ids,
    token_ids.map(tuple),
    token_ids.map(lambda ids: np.array(ids, dtype=np.uint32)),
    st.lists(token_ids, max_size=2),
    st.lists(texts, max_size=2),
    messages,
)
payloads = shaped(
    st.fixed_dictionaries(
        {},
        optional={
            "messages": st.one_of(st.none(), messages),
            "prompt": prompts,
            "input": prompts,
            "prompt_token_ids": st.one_of(st.none(), token_ids),
            "max_tokens": limits,
            "max_completion_tokens": limits,
            "cache_salt": st.one_of(st.none(), texts, st.just([])),
            "scope": st.sampled_from([None, {}, {"headers": [(b"x-tenant", b"t")]}]),
        },
    )
)
calls = st.tuples(
    st.lists(payloads, max_size=3),
    st.fixed_dictionaries(
        {}, optional={"request": payloads, "request_token_ids": st.one_of(st.none(), token_ids)}
    ),
)


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Arrays are told apart by who they are."""
    prompts = one.pop("tokens", None), other.pop("tokens", None)
    if isinstance(prompts[0], np.ndarray):
        return prompts[0] is prompts[1] and one == other
    return prompts[0] == prompts[1] and one == other


@settings(max_examples=300, deadline=None)
@given(calls)
def test_what_is_found_is_what_the_reference_finds(of: tuple[list[Any], dict[str, Any]]) -> None:
    args, kwargs = of
    assert same(asked(*args, **kwargs), call_reference.asked(args, kwargs))


@pytest.fixture(scope="module")
def routers() -> Iterator[tuple[Router, Router]]:
    """Two alike, whose one endpoint leaves nothing to the time that passes."""
    one, other = Router(), Router()
    for router in (one, other):
        router.add_endpoint("http://a")
    yield one, other
    one.close()
    other.close()


def outcome(router: Router, decide: Any) -> Any:
    """What there is to see of a decision, or that it was refused."""
    try:
        with decide() as decision:
            return decision.prompt_tokens, decision.matched_tokens
    except (LlmdError, TypeError) as refused:
        return type(refused)


@settings(max_examples=300, deadline=None)
@given(calls)
def test_a_call_is_routed_as_what_is_found_in_it(
    routers: tuple[Router, Router], of: tuple[list[Any], dict[str, Any]]
) -> None:
    args, kwargs = of
    one, other = routers
    usual = {"ttft_slo_ms": 500.0}
    found = usual | call_reference.asked(args, kwargs)
    tokens, text = found.pop("tokens", None), found.pop("text", None)
    if tokens is None and not text:
        tokens, text = [0], None
    native = outcome(one, lambda: one._route_call(args, kwargs, usual))
    plain = outcome(other, lambda: other.route(tokens, text=text, **found))
    assert native == plain


def test_only_those_that_are_allowed_get_a_call(router: Router) -> None:
    payload = {"messages": MESSAGES}
    for name in ("http://a", "http://b"):
        assert router._route_call((payload,), None, {}, [name]).address == name
    with pytest.raises(NoEndpointError):
        router._route_call((payload,), None, {}, [])


def test_a_call_that_cannot_be_is_refused(router: Router) -> None:
    with pytest.raises(PromptError, match="priority is 'high'"):
        router._route_call(({"prompt": "p", "priority": "high"},), None, {})
    with pytest.raises(PromptError, match="x-slo-ttft-ms"):
        asked(SimpleNamespace(scope={"headers": [(b"x-slo-ttft-ms", b"soon")]}))
    with pytest.raises(TypeError, match="not iterable"):
        asked({"messages": 5})
