"""Endpoints and requests, from Python."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import llmd_sched
import numpy as np
import pytest
from llmd_sched import (
    EndpointError,
    LlmdError,
    NoEndpointError,
    PromptError,
    Router,
    RouterClosedError,
    UnknownEndpointError,
)

PROMPT = np.arange(1000, dtype=np.uint32)


def test_a_prompt_goes_back_to_where_its_blocks_are(router: Router) -> None:
    with router.route(PROMPT) as first:
        assert (first.matched_tokens, first.match_source) == (0, "none")
    again = router.route(PROMPT)
    assert again.address == first.address
    assert (again.matched_tokens, again.match_source) == (992, "approximate")
    assert again.prompt_tokens == 1000


def test_a_text_goes_back_to_where_its_blocks_are(router: Router) -> None:
    text = "You are a helpful assistant. " * 40
    with router.route(text=text) as first:
        pass
    again = router.route(text=text)
    assert again.address == first.address
    assert again.matched_tokens > 0
    assert router.route(text=text, cache_salt="other").matched_tokens == 0


def test_load_is_booked_at_the_decision_and_released_once(router: Router) -> None:
    decision = router.route(PROMPT)
    endpoint = decision.endpoint
    assert router.endpoint(endpoint).inflight_requests == 1
    assert router.endpoint(endpoint).pending_prefill_tokens == 1000
    assert router.first_token(decision)
    assert router.endpoint(endpoint).pending_prefill_tokens == 0
    assert router.progress(decision, 24)
    assert router.endpoint(endpoint).active_decode_tokens == 1024
    assert router.finish(decision, 30)
    assert router.endpoint(endpoint).inflight_requests == 0
    assert not router.finish(decision, 30)
    assert not router.cancel(decision)
    assert not router.first_token(decision)
    assert not router.progress(decision, 31)


def test_a_with_statement_finishes_or_cancels(router: Router) -> None:
    with router.route(PROMPT) as decision:
        assert router.endpoint(decision.endpoint).inflight_requests == 1
    with pytest.raises(KeyError), router.route(PROMPT):
        raise KeyError
    assert [endpoint.inflight_requests for endpoint in router.endpoints()] == [0, 0]
    requests = router.stats()["requests"]
    assert (requests["finished"], requests["cancelled"]) == (1, 1)


def test_an_identity_is_an_object_an_id_or_an_address(router: Router) -> None:
    a, b = router.endpoints()
    for name in (a, a.id, a.address):
        assert router.endpoint(name) == a
    assert a != b
    assert hash(a) == hash(router.endpoint(a))
    assert a != "http://a"
    router.cordon("http://a")
    assert router.endpoint(a).health == "cordoned"
    assert a.health == "ready", "a snapshot stays what it was"


def test_an_address_of_several_ranks_is_ambiguous() -> None:
    with Router() as router:
        ranks = [router.add_endpoint("http://a", dp_rank=rank) for rank in range(3)]
        with pytest.raises(UnknownEndpointError, match="3 ranks have the address"):
            router.cordon("http://a")
        router.cordon(ranks[1])
        assert [it.health for it in router.endpoints()] == ["ready", "cordoned", "ready"]
        decision = router.route([1], allowed=[ranks[2]])
        assert (decision.address, decision.dp_rank) == ("http://a", 2)
        assert decision.headers == {"X-data-parallel-rank": "2"}


def test_two_endpoints_with_one_address_are_refused(router: Router) -> None:
    with pytest.raises(EndpointError, match=r"\"http://a\" with dp_rank 0 is already .* as 0\.1"):
        router.add_endpoint("http://a")
    assert len(router.endpoints()) == 2


def test_a_removed_id_is_never_its_successor(router: Router) -> None:
    a, _ = router.endpoints()
    decision = router.route(PROMPT, allowed=[a])
    router.remove_endpoint(a)
    successor = router.add_endpoint("http://c")
    assert (a.id, successor.id) == ("0.1", "0.2")
    with pytest.raises(UnknownEndpointError):
        router.cordon(a)
    assert not router.finish(decision)
    assert decision.address == "http://a"
    assert decision.endpoint.address == "http://a"
    assert decision.endpoint.health == "left"
    assert router.endpoint(successor).inflight_requests == 0


def test_draining_lets_requests_end(router: Router) -> None:
    a, _ = router.endpoints()
    decision = router.route(PROMPT, allowed=[a])
    router.drain(a)
    assert router.route(PROMPT).address == "http://b"
    assert len(router.endpoints()) == 2
    assert router.finish(decision)
    assert [it.address for it in router.endpoints()] == ["http://b"]


def test_an_unreachable_endpoint_gets_nothing_until_it_answers(router: Router) -> None:
    router.set_reachable("http://a", False)
    assert {router.route([i]).address for i in range(8)} == {"http://b"}
    router.set_reachable("http://a", True)
    assert router.endpoint("http://a").health == "ready"


def test_a_spec_comes_back_as_it_was_given() -> None:
    with Router() as router:
        endpoint = router.add_endpoint(
            "http://a",
            model="m",
            role="decode",
            loras=("x", "y"),
            topology={"zone": "z1"},
            capacity={"kv_blocks": 100, "block_size": 16},
            labels={"pool": "p"},
        )
    assert (endpoint.model, endpoint.role, endpoint.loras) == ("m", "decode", ("x", "y"))
    assert endpoint.topology["zone"] == "z1"
    assert endpoint.capacity["kv_blocks"] == 100
    assert endpoint.labels == {"pool": "p"}
    assert endpoint.kv_source == "approximate"
    assert llmd_sched.Endpoint.from_json(endpoint.to_dict()) == endpoint


REFUSED_ENDPOINTS: dict[str, tuple[dict[str, Any], str]] = {
    "no address": ({"address": ""}, "address"),
    "role": ({"address": "x", "role": "both "}, 'role is "both ": use both, prefill'),
    "capacity": ({"address": "x", "capacity": {"kv": 1}}, "capacity: unknown field `kv`"),
    "topology": ({"address": "x", "topology": {"planet": "m"}}, 'topology has the key "planet"'),
    "labels": ({"address": "x", "labels": {"a": 1}}, "labels is {'a': 1}: give a mapping of str"),
    "kv address": ({"address": "x", "kv_events": "http://x"}, "http://x"),
    "kv format": ({"address": "x", "kv_format": "v2"}, 'kv_format is "v2": use vllm or sglang'),
}


@pytest.mark.parametrize("case", REFUSED_ENDPOINTS)
def test_an_endpoint_that_cannot_be_is_refused(case: str, router: Router) -> None:
    spec, message = REFUSED_ENDPOINTS[case]
    with pytest.raises(EndpointError) as refusal:
        router.add_endpoint(**spec)
    assert message in str(refusal.value)
    assert len(router.endpoints()) == 2


REFUSED_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "priority": ({"priority": "high"}, "priority is 'high': give an integer"),
    "slo": ({"ttft_slo_ms": float("nan")}, "ttft_slo_ms is nan: give milliseconds above 0"),
    "negative slo": ({"tpot_slo_ms": -1}, "tpot_slo_ms is -1: give milliseconds above 0"),
    "hold": ({"hold_ms": -5}, "hold_ms is -5: give milliseconds, an integer from 0 on"),
    "output": ({"max_output_tokens": 2**40}, "max_output_tokens is 1099511627776: give 0 to"),
    "model": ({"model": 3}, "model is 3: give a string"),
    "labels": ({"required_labels": ["a"]}, "required_labels is ['a']: give a mapping"),
    "allowed": ({"allowed": "http://a"}, "allowed is 'http://a': give a list of endpoints"),
    "multimodal": ({"multimodal": [("x", 1)]}, "give a list of (identifier, offset_tokens"),
}


@pytest.mark.parametrize("case", REFUSED_OPTIONS)
def test_an_option_that_cannot_be_is_refused(case: str, router: Router) -> None:
    options, message = REFUSED_OPTIONS[case]
    with pytest.raises(PromptError) as refusal:
        router.route([1, 2], **options)
    assert message in str(refusal.value)
    assert router.stats()["requests"]["decisions"] == 0


def test_an_unknown_option_is_named_with_the_known_ones(router: Router) -> None:
    with pytest.raises(TypeError, match=r"unknown option \"sesion_id\": .* session_id"):
        router.route([1], sesion_id="x")  # type: ignore[call-arg]


def test_a_prompt_is_given_once(router: Router) -> None:
    with pytest.raises(PromptError, match="no prompt is given"):
        router.route()
    with pytest.raises(PromptError, match="both tokens and text"):
        router.route([1], text="a")
    with pytest.raises(PromptError, match="the prompt is empty"):
        router.route(text="")


def test_who_cannot_serve_is_said() -> None:
    with Router() as router:
        with pytest.raises(NoEndpointError, match="add one first") as empty:
            router.route([1])
        assert empty.value.reason == "empty-fleet"
        router.add_endpoint("http://a", model="m")
        router.add_endpoint("http://b", model="n")
        router.cordon("http://b")
        with pytest.raises(NoEndpointError, match="1 serving another model") as nobody:
            router.route([1], model="n")
        assert nobody.value.reason == "no-candidate"
        with pytest.raises(UnknownEndpointError, match='"http://z"'):
            router.route([1], allowed=["http://z"])


def test_a_request_without_a_model_matches_in_a_fleet_of_one() -> None:
    with Router() as router:
        router.add_endpoint("http://a", model="m")
        router.finish(router.route(PROMPT, model="m"))
        assert router.match(PROMPT).matched_tokens.tolist() == [992]
        router.add_endpoint("http://b", model="n")
        assert router.match(PROMPT).matched_tokens.tolist() == [0, 0]
        assert router.match(PROMPT, model="m").matched_tokens.tolist() == [992, 0]


def test_route_many_is_all_or_none(router: Router) -> None:
    decisions = router.route_many([[1], np.array([2]), range(3)], session_id="s")
    assert len(decisions) == 3
    assert sum(endpoint.inflight_requests for endpoint in router.endpoints()) == 3
    with pytest.raises(PromptError, match=r"prompt 1: the prompt is empty"):
        router.route_many([[1], []])
    assert sum(endpoint.inflight_requests for endpoint in router.endpoints()) == 3
    router.cordon("http://a")
    router.cordon("http://b")
    with pytest.raises(NoEndpointError, match="prompt 0: ") as nobody:
        router.route_many([[1]])
    assert nobody.value.reason == "no-candidate"


def test_route_many_of_one_array_is_route_many_of_its_parts(router: Router) -> None:
    flat = np.arange(500, dtype=np.uint32)
    offsets = np.array([0, 100, 101, 480])
    decisions = router.route_many(flat, offsets, model="m")
    assert [decision.prompt_tokens for decision in decisions] == [100, 1, 379]
    parts = router.route_many([flat[:100], flat[100:101], flat[101:480]], model="m")
    assert [decision.matched_tokens for decision in parts] == [96, 0, 368]
    assert router.route_many(flat, [], model="m") == []


@pytest.mark.parametrize(
    ("offsets", "why"),
    [
        ([0, 9], "9 at position 1 is not from 0 to 4"),
        ([-1, 2], "-1 at position 0 is not from 0 to 4"),
        ([3, 2], "2 at position 1 is not from 3 to 4"),
        ([[0, 1]], "not one-dimensional"),
        (["x"], "invalid literal"),
    ],
)
def test_offsets_that_cannot_be_are_refused(
    router: Router, offsets: list[object], why: str
) -> None:
    with pytest.raises(PromptError, match=why):
        router.route_many(np.arange(4, dtype=np.uint32), offsets)


def test_match_books_nothing(router: Router) -> None:
    router.finish(router.route(PROMPT, allowed=["http://b"]))
    matches = router.match(PROMPT)
    assert [endpoint.address for endpoint in matches.endpoints] == ["http://a", "http://b"]
    assert matches.matched_blocks.tolist() == [0, 62]
    assert matches.matched_tokens.dtype == np.uint32
    assert matches.lower_tier_blocks.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert matches.sources == ("none", "approximate")
    assert (matches.query_blocks, len(matches)) == (62, 2)
    assert router.stats()["requests"]["decisions"] == 1


def test_explain_changes_nothing_and_tells_what_route_will_do(router: Router) -> None:
    router.finish(router.route(PROMPT))
    before = router.stats()
    explanation = router.explain(PROMPT)
    assert router.stats() == before
    decision = router.route(PROMPT)
    assert explanation.chosen == decision.endpoint
    assert explanation.totals.tolist() == decision.explanation.totals.tolist()
    assert explanation.to_dict()["totals"] == explanation.totals.tolist()
    assert decision.address in repr(explanation)
    assert "<table>" in explanation._repr_html_()


def test_explain_says_who_was_removed(router: Router) -> None:
    router.cordon("http://a")
    router.cordon("http://b")
    explanation = router.explain(PROMPT)
    assert explanation.chosen is None
    assert explanation.rejection is not None
    assert "2 not ready" in explanation.rejection
    assert "nobody" in repr(explanation)


def test_html_is_escaped() -> None:
    with Router() as router:
        router.add_endpoint("<script>alert(1)</script>")
        assert "<script>" not in router.explain([1])._repr_html_()


def test_equal_seeds_make_equal_decisions() -> None:
    def addresses(seed: int) -> list[str]:
        with Router(profile="random", seed=seed) as router:
            for name in "abcd":
                router.add_endpoint(f"http://{name}")
            return [router.route([i]).address for i in range(64)]

    assert addresses(1) == addresses(1)
    assert addresses(1) != addresses(2)


def test_a_closed_router_refuses(router: Router) -> None:
    router.close()
    router.close()
    with pytest.raises(RouterClosedError, match="make a new one"):
        router.route([1])
    with pytest.raises(RouterClosedError):
        router.add_endpoint("http://c")
    assert len(router.endpoints()) == 2


def test_a_router_in_a_cycle_with_its_scorer_is_collected() -> None:
    class Scorer:
        def __call__(self, features: llmd_sched.Features) -> list[float]:
            return [0.0] * len(features)

    scorer = Scorer()
    router = Router()
    scorer.router = router  # type: ignore[attr-defined]
    router.add_scorer("cyclic", scorer)
    gone = weakref.ref(scorer)
    del router, scorer
    gc.collect()
    assert gone() is None


def test_exceptions_are_one_tree_and_can_be_sent() -> None:
    classes = [getattr(llmd_sched, name) for name in llmd_sched.__all__ if name.endswith("Error")]
    assert all(issubclass(it, LlmdError) for it in classes)
    error = pickle.loads(pickle.dumps(NoEndpointError("nobody", "hold-expired")))
    assert (str(error), error.reason) == ("nobody", "hold-expired")
    assert str(copy.copy(UnknownEndpointError("gone"))) == "gone"
