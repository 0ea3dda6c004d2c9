"""What a router was asked, taken out of its decision log and simulated."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llmd_sched import NoEndpointError, ReplayError, Router, WorkloadError, block_keys, sim


def test_a_log_is_the_workload_that_was_asked(tmp_path: Path) -> None:
    path = tmp_path / "decisions.log"
    rng = np.random.default_rng(2)
    asked = []
    with Router(block_size=32, seed=4, record=path) as router:
        for index in range(3):
            router.add_endpoint(f"http://{index}")
        for number in range(60):
            tokens = np.concatenate([np.arange(200), rng.integers(0, 999, rng.integers(1, 300))])
            session, output = f"s{number % 7}", int(rng.integers(1, 90))
            decision = router.route(tokens, session_id=session)
            router.first_token(decision)
            router.finish(decision, output)
            asked.append((session, len(tokens), output, block_keys(tokens, block_size=32)))

    workload = sim.Workload.from_decision_log(path)
    assert (len(workload), workload.sessions, workload.block_size) == (60, 7, 32)
    assert workload.closed_loop is False
    # Session after session, each in its order.
    expected = sorted(asked, key=lambda it: it[0])
    assert workload.prompt_tokens.tolist() == [it[1] for it in expected]
    assert workload.output_tokens.tolist() == [it[2] for it in expected]
    np.testing.assert_array_equal(workload.keys, np.concatenate([it[3] for it in expected]))
    assert workload.at_ms.min() == 0.0
    for first, end in zip(workload.session_offsets, workload.session_offsets[1:], strict=False):
        assert (np.diff(workload.at_ms[first:end]) > 0).all()
    assert workload.log_gaps == {
        "assumed_outputs": 0,
        "estimated_prompts": 0,
        "lost_entries": 0,
        "complete": True,
    }
    assert pickle.loads(pickle.dumps(workload)) == workload
    other = sim.run(workload, sim.World(replicas=2, warmup_share=0.0).at_rate(5.0), "lmetric")
    assert other.summary.served == 60


def test_what_a_log_cannot_tell_is_assumed_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "decisions.log"
    with Router(record=path) as router:
        with pytest.raises(NoEndpointError):
            router.route([1] * 40)
        router.add_endpoint("http://a")
        router.finish(router.route([2] * 40), 10)
        router.finish(router.route([3] * 40), 21)
        router.cancel(router.route([4] * 40))
        progressed = router.route([5] * 40)
        router.progress(progressed, 7)
        router.cancel(progressed)
        router.finish(router.route(text="how do you do?"), 11)
        router.route([6] * 40)
    workload = sim.Workload.from_decision_log(path)
    # Of the refused, the cancelled and the unfinished: the mean of 10, 21, 7 and 11.
    assert workload.output_tokens.tolist() == [12, 10, 21, 12, 7, 11, 12]
    gaps = workload.log_gaps
    assert gaps is not None
    assert (gaps["assumed_outputs"], gaps["estimated_prompts"]) == (3, 1)
    given = sim.Workload.from_decision_log(path, assumed_output_tokens=99)
    assert given.output_tokens.tolist() == [99, 10, 21, 99, 7, 11, 99]


def test_held_requests_come_when_they_came(tmp_path: Path) -> None:
    path = tmp_path / "decisions.log"
    with Router(record=path) as router:
        router.add_endpoint("http://a")
        router.cordon("http://a")
        with pytest.raises(NoEndpointError):
            router.route([1, 2], hold_ms=1)
        router.uncordon("http://a")
        router.finish(router.route([1, 2], hold_ms=1), 5)
    assert sim.Workload.from_decision_log(path).output_tokens.tolist() == [5, 5]


def test_logs_without_a_workload_say_why(tmp_path: Path) -> None:
    unasked, unfinished, other = (tmp_path / name for name in ("a.log", "b.log", "c.log"))
    with Router(record=unasked):
        pass
    with Router(record=unfinished) as router:
        router.add_endpoint("http://a")
        router.route([1])
    other.write_bytes(b"hello")
    with pytest.raises(WorkloadError, match=r"a\.log: the decision log has no request"):
        sim.Workload.from_decision_log(unasked)
    with pytest.raises(WorkloadError, match="how many output tokens to assume"):
        sim.Workload.from_decision_log(unfinished)
    assert len(sim.Workload.from_decision_log(unfinished, assumed_output_tokens=3)) == 1
    with pytest.raises(ReplayError, match="not a decision log"):
        sim.Workload.from_decision_log(other)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.log"):
        sim.Workload.from_decision_log(tmp_path / "nowhere.log")


def test_the_command_line_reads_logs_too(tmp_path: Path) -> None:
    path = tmp_path / "decisions.log"
    with Router(record=path) as router:
        router.add_endpoint("http://a")
        for number in range(30):
            router.finish(router.route(range(number, number + 90)), 4)
    command = [
        *(sys.executable, "-m", "llmd_sched", "sim", "--format", "decision-log", "--json"),
        *("--trace", str(path), "--rate", "3", "--policy", "round-robin", "--replicas", "2"),
    ]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "30 requests: 0 outputs assumed" in ran.stderr
    assert '"served":27' in ran.stdout, ran.stdout
