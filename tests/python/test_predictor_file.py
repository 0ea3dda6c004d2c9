"""What the latency models have learned, as a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from llmd_sched import Explanation, Router, SnapshotError

PROFILE = {"engine-profile": "qwen3-32b_h100_tp2"}
PROMPT = list(range(2_000))


def predicted(router: Router) -> tuple[float | None, ...]:
    """Of a prompt that nobody holds, on the only endpoint, at rest."""
    decision = router.route(list(range(10_000, 13_000)))
    router.cancel(decision)
    return decision.predicted_ttft_ms, decision.predicted_ttft_p90_ms, decision.predicted_tpot_ms


def learned(path: Path) -> tuple[float | None, ...]:
    """Saves what a router has learned of an endpoint that answers at once."""
    with Router() as router:
        router.add_endpoint("http://a:1", labels=PROFILE)
        for _ in range(40):
            decision = router.route(PROMPT)
            router.first_token(decision)
            router.finish(decision, 20)
        assert router.save_predictor(path) == 1
        return predicted(router)


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "predictor.json"
    expected = learned(path)
    assert list(tmp_path.iterdir()) == [path]
    with Router() as router:
        router.add_endpoint("http://a:1", labels=PROFILE)
        assert predicted(router)[0] != expected[0]
    with Router({"predictor": str(path)}) as router:
        router.add_endpoint("http://a:1", labels=PROFILE)
        assert predicted(router)[:2] == expected[:2]


def test_quantiles_bracket_the_mean_before_anything_was_seen() -> None:
    with Router() as router:
        router.add_endpoint("http://a:1", labels=PROFILE)
        decision = router.route(PROMPT)
        means = decision.predicted_ttft_ms, decision.predicted_tpot_p50_ms
        p90s = decision.predicted_ttft_p90_ms, decision.predicted_tpot_p90_ms
        for mean, p90 in zip(means, p90s, strict=True):
            assert 0 < (mean or 0) <= (p90 or 0)
        assert router.endpoint("http://a:1").latency_drift is None


def test_an_explanation_tells_what_the_decision_will_predict() -> None:
    names = [f"predicted_{it}_ms" for it in ("ttft", "ttft_p90", "tpot", "tpot_p50", "tpot_p90")]

    def told(of: object) -> list[float | None]:
        return [getattr(of, name) for name in names]

    with Router() as router:
        router.add_endpoint("http://a:1")
        assert told(router.explain(PROMPT)) == [None] * 5
        assert "expected" not in repr(router.explain(PROMPT))
        router.add_endpoint("http://b:1", labels=PROFILE)
        why = router.explain(PROMPT, allowed=["http://b:1"])
        decision = router.route(PROMPT, allowed=["http://b:1"])
        assert told(why) == told(decision) == told(decision.explanation)
        assert told(Explanation.from_json(why.to_dict())) == told(why)
        assert f"first token expected in {why.predicted_ttft_ms:.1f} ms, p90 " in repr(why)
        router.cordon("http://b:1")
        assert told(router.explain(PROMPT, allowed=["http://b:1"])) == [None] * 5


def test_a_first_start_has_no_file(tmp_path: Path) -> None:
    with Router({"predictor": str(tmp_path / "none")}) as router:
        assert router.endpoints() == []


def test_a_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "predictor.json"
    learned(path)
    whole = path.read_bytes()
    for content, why in [
        (b"", "not a document of latency models"),
        (whole[:-20], "not a document of latency models"),
        (whole.replace(b'"format":1', b'"format":9', 1), "format is 9, this release reads 1"),
    ]:
        path.write_bytes(content)
        with pytest.raises(SnapshotError, match=why):
            Router({"predictor": str(path)})
    with pytest.raises(IsADirectoryError):
        Router({"predictor": str(tmp_path)})
    with Router() as router, pytest.raises(FileNotFoundError):
        router.save_predictor(tmp_path / "nowhere" / "predictor")
