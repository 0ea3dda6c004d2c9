"""Scorers written in Python: what they see, what they decide, and what their mistakes cost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from llmd_sched import ConfigError, Features, Router, ScoreError

PROMPT = range(1000)


def prefers(address: str) -> Callable[[Features], Any]:
    return lambda features: [float(it.address == address) for it in features.candidates]


@pytest.mark.parametrize("address", ["http://a", "http://b"])
def test_a_heavy_scorer_decides(router: Router, address: str) -> None:
    router.add_scorer("prefers", prefers(address), weight=1000.0)
    decision = router.route(PROMPT)
    assert decision.address == address
    assert decision.explanation.weights["prefers"] == 1000.0
    column = decision.explanation.scores["prefers"].tolist()
    assert column == [float(it.address == address) for it in decision.explanation.candidates]
    assert router.explain(PROMPT).chosen == decision.endpoint


def test_a_scorer_sees_every_candidate_as_columns(router: Router) -> None:
    seen: list[Features] = []

    def look(features: Features) -> Any:
        seen.append(features)
        return np.zeros(len(features))

    router.finish(router.route(PROMPT, allowed=["http://b"]))
    router.route(range(64), allowed=["http://a"])
    router.add_scorer("look", look)
    router.route(PROMPT, session_id="s", priority=3, model="m")
    (features,) = seen
    assert [it.address for it in features.candidates] == ["http://a", "http://b"]
    assert features["matched_tokens"].tolist() == [64, 992]
    assert features["inflight_requests"].tolist() == [1, 0]
    assert np.isnan(features["kv_usage"]).all()
    assert set(features.columns) >= {"uncached_tokens", "waiting_requests", "predicted_ttft_ms"}
    assert all(features[name].shape == (2,) for name in features.columns)
    assert (features.prompt_tokens, features.model) == (1000, "m")
    assert (features.session_id, features.priority, features.lora) == ("s", 3, None)
    with pytest.raises(KeyError, match="matched_tokens"):
        features["matched"]


def test_a_scorer_of_the_same_name_is_replaced(router: Router) -> None:
    router.add_scorer("prefers", prefers("http://a"), weight=1000.0)
    router.add_scorer("prefers", prefers("http://b"), weight=1000.0)
    decision = router.route(PROMPT)
    assert decision.address == "http://b"
    assert list(decision.explanation.scores).count("prefers") == 1


def test_a_profile_that_lists_the_scorer_decides_its_weight() -> None:
    profile = {"scorers": [{"name": "foreign", "as": "prefers", "weight": 5.0}]}
    with Router({"schedule": {"profile": profile}}) as router:
        router.add_endpoint("http://a")
        router.add_endpoint("http://b")
        assert router.explain([1]).fallback == 'foreign scorer "prefers" gave no scores'
        router.add_scorer("prefers", prefers("http://b"), weight=0.0)
        decision = router.route([1])
        assert decision.address == "http://b"
        assert decision.explanation.weights == {"prefers": 5.0}


def raises(features: Features) -> Any:
    raise ZeroDivisionError("no luck")


MISTAKES: dict[str, Callable[[Features], Any]] = {
    "raises": raises,
    "too few": lambda features: [1.0],
    "too many": lambda features: np.ones(len(features) + 1),
    "none": lambda features: None,
    "text": lambda features: "best",
    "matrix": lambda features: np.ones((len(features), 2)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_counted_and_the_request_is_routed_all_the_same(
    router: Router, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = router.explain(PROMPT).chosen
    router.add_scorer("wrong", MISTAKES[mistake], weight=1000.0)
    with caplog.at_level(logging.WARNING, "llmd_sched"):
        decision = router.route(PROMPT)
        router.route(PROMPT)
    assert decision.endpoint == expected
    assert decision.explanation.fallback == 'foreign scorer "wrong" gave 0 scores for 2 candidates'
    assert set(decision.explanation.scores["wrong"].tolist()) == {0.5}
    assert router.stats()["scorer_failures"] == 2
    assert router.stats()["requests"]["fallbacks"] == 2
    assert [record.getMessage() for record in caplog.records].count(
        caplog.records[0].getMessage()
    ) == 1, "the first failure is told, not each"
    assert "wrong" in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ([np.nan, 1.0], [0.0, 1.0]),
        ([-np.inf, np.inf], [0.0, 1.0]),
        ([-3.0, 7.0], [0.0, 1.0]),
        (np.array([0, 1], np.int8), [0.0, 1.0]),
    ],
)
def test_scores_out_of_range_are_brought_into_it(
    router: Router, given: Any, taken: list[float]
) -> None:
    router.add_scorer("odd", lambda features: given, weight=1000.0)
    decision = router.route(PROMPT)
    assert decision.address == "http://b"
    assert decision.explanation.scores["odd"].tolist() == taken
    assert np.isfinite(decision.explanation.totals).all()


def test_what_is_the_callers_own_is_not_swallowed(router: Router) -> None:
    def interrupted(features: Features) -> Any:
        raise KeyboardInterrupt

    router.add_scorer("interrupted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        router.route(PROMPT)
    assert router.stats()["requests"]["decisions"] == 0


def test_a_scorer_may_ask_and_change_its_router(router: Router) -> None:
    calls = []

    def meddles(features: Features) -> Any:
        calls.append(len(features))
        if len(calls) == 1:
            router.finish(router.route(range(3000, 3100), allowed=["http://a"]))
            router.add_endpoint("http://c", model="m")
        return [float(it.address == "http://c") for it in features.candidates]

    router.add_scorer("meddles", meddles, weight=1000.0)
    assert router.route(PROMPT).address == "http://c", "a stale choice is scored once more"
    assert calls == [2, 1, 3]


def test_features_and_commit_are_the_same_in_two_steps(router: Router) -> None:
    router.add_scorer("mine", prefers("http://a"), weight=1000.0)
    features = router.features(PROMPT, session_id="s")
    assert router.stats()["requests"]["decisions"] == 0
    decision = router.commit(features, {"mine": [0.0, 1.0]})
    assert decision.address == "http://b"
    assert decision.prompt_tokens == 1000
    again = router.route(PROMPT, allowed=["http://b"])
    assert again.matched_tokens == 992, "what was committed is what was prepared"


def test_commit_after_the_fleet_changed_takes_what_still_fits(router: Router) -> None:
    router.add_scorer("mine", prefers("http://a"), weight=1000.0)
    features = router.features(PROMPT)
    router.remove_endpoint("http://a")
    assert router.commit(features, {"mine": [1.0, 0.0]}).address == "http://b"


def test_commit_refuses_scores_of_another_shape(router: Router) -> None:
    features = router.features(PROMPT)
    with pytest.raises(ScoreError, match="3 for 2 candidates"):
        router.commit(features, {"mine": [1.0, 2.0, 3.0]})
    with pytest.raises(ScoreError, match="mine"):
        router.commit(features, {"mine": "best"})
    assert router.stats()["requests"]["decisions"] == 0


def test_a_scorer_that_cannot_be_is_refused(router: Router) -> None:
    with pytest.raises(ConfigError, match="built-in scorer"):
        router.add_scorer("queue-scorer", prefers("http://a"))
    with pytest.raises(ConfigError, match="weight is NaN"):
        router.add_scorer("mine", prefers("http://a"), weight=float("nan"))
    with pytest.raises(ConfigError, match="name is empty"):
        router.add_scorer("", prefers("http://a"))
    with pytest.raises(TypeError, match="give a callable"):
        router.add_scorer("mine", 3)  # type: ignore[arg-type]
