"""The simulator from Python: workloads of arrays, worlds, rows and figures."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from llmd_sched import ConfigError, WorkloadError, sim
from sim_worlds import BLOCK_TOKENS, SMALL, prompts, world


def test_figures_are_those_of_the_rows() -> None:
    workload = prompts()
    result = sim.run(workload, replace(world(), warmup_share=0.2))
    rows, summary = result.rows, result.summary
    counted = rows["is_counted"]
    assert counted.sum() == summary.requests == 240
    served = counted & (rows["fate"] == sim.FATES.index("served"))
    assert served.sum() == summary.served
    in_slo = (
        served
        & (rows["ttft_ms"] <= rows["ttft_limit_ms"])
        & (rows["tpot_ms"] <= rows["tpot_limit_ms"])
    )
    assert in_slo.sum() == summary.in_slo
    assert (rows["is_in_slo"] & counted == in_slo).all()
    hits = rows["hit_tokens"][served].sum() / rows["prompt_tokens"][served].sum()
    assert summary.hit_ratio == pytest.approx(hits)
    ttft_ms = np.sort(rows["ttft_ms"][served])
    assert summary.ttft_p50_ms in ttft_ms
    assert np.abs(np.searchsorted(ttft_ms, summary.ttft_p50_ms) - len(ttft_ms) / 2) <= 1
    np.testing.assert_allclose(rows["ttft_ms"], rows["first_token_ms"] - rows["arrived_ms"])
    assert result.engines["finished_requests"].sum() == (rows["fate"] == 0).sum()
    assert result.engines["prefix_hits_tokens"].sum() == rows["hit_tokens"].sum()
    assert result.ended_ms == rows["finished_ms"].max()


def test_rows_follow_the_workload() -> None:
    workload = prompts()
    rows = sim.run(workload, world()).rows
    order = rows["prompt"]
    assert sorted(order) == list(range(len(workload)))
    assert (rows["prompt_tokens"] == workload.prompt_tokens[order]).all()
    assert (rows["output_tokens"] == workload.output_tokens[order]).all()
    np.testing.assert_allclose(rows["arrived_ms"], workload.at_ms[order], atol=1e-6)


def test_equal_seeds_give_equal_rows_and_others_do_not() -> None:
    workload, jittered = prompts(), world().at_rate(60.0, jitter_ms=500.0)
    first, again, other = (sim.run(workload, jittered, "random", seed=s).rows for s in (1, 1, 2))
    for name, column in first.items():
        np.testing.assert_array_equal(column, again[name])
    assert not np.array_equal(first["arrived_ms"], other["arrived_ms"])


def test_a_run_holds_no_gil() -> None:
    workload, started = prompts(20_000), threading.Event()
    interval_s = sys.getswitchinterval()
    # Nobody is made to give the GIL up: whoever wakes up here was given it.
    sys.setswitchinterval(1e6)
    try:
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(lambda: (started.set(), sim.run(workload, world(), "random")))
            started.wait()
            assert not running.done()
    finally:
        sys.setswitchinterval(interval_s)


def test_a_request_alone_takes_what_the_formula_says() -> None:
    a, b, c, d, e, f = steps = (2.0, 0.03, 1e-6, 7.0, 0.02, 5e-5)
    alone = sim.Workload([0.0], [1000], [2], keys=[[]])
    engine = sim.Engine(steps, kv_tokens=100_000)
    rows = sim.run(alone, sim.World(replicas=[engine], warmup_share=0.0)).rows
    assert rows["ttft_ms"][0] == pytest.approx(a + b * 1000 + c * 1000**2 / 2, abs=1e-3)
    assert rows["tpot_ms"][0] == pytest.approx(d + e + f * 1001, rel=1e-3)


def test_ends_that_nobody_tells_stay_booked_unless_they_are_guessed() -> None:
    result = {
        ends: sim.run(prompts(), replace(world(), ends=ends), "least-request").rows
        for ends in ("told", "untold", "guessed")
    }
    # What is booked for ever counts requests, and so shares them out evenly.
    shares = {ends: np.bincount(rows["engine"], minlength=3) for ends, rows in result.items()}
    assert shares["untold"].tolist() == [100, 100, 100]
    assert np.ptp(shares["told"]) > 0
    assert not np.array_equal(result["told"]["engine"], result["guessed"]["engine"])
    assert not np.array_equal(result["untold"]["engine"], result["guessed"]["engine"])


def test_a_mixed_fleet_has_engines_of_both_kinds() -> None:
    fast, slow = SMALL, replace(SMALL, profile="qwen3-32b_h200_tp1")
    rows = sim.run(prompts(), replace(world(), replicas=[fast, slow]), "round-robin").rows
    alone = [np.median(rows["ttft_ms"][rows["engine"] == engine]) for engine in (0, 1)]
    assert alone[0] < alone[1]


def test_an_engine_that_dies_serves_nobody_while_it_is_gone() -> None:
    gone = sim.Outage(1, fails_ms=1_000.0, returns_ms=2_000.0)
    broken = replace(world(), outages=[gone], outage_notice_ms=0.0)
    result = sim.run(prompts(), broken, "round-robin")
    rows = result.rows
    there = (rows["first_token_ms"] <= 1_000.0) | (rows["first_token_ms"] >= 2_000.0)
    assert there[rows["engine"] == 1].all()
    assert rows["retries"].sum() == result.summary.retries > 0


def sessions() -> sim.Workload:
    """Five sessions of eight turns, half a second apart."""
    turns = prompts(40)
    return sim.Workload(
        np.full(40, 500.0),
        turns.prompt_tokens,
        turns.output_tokens,
        turns.keys,
        turns.key_offsets,
        session_offsets=range(0, 41, 8),
        block_size=BLOCK_TOKENS,
        closed_loop=True,
    )


def test_a_closed_loop_waits_for_answers_and_pauses() -> None:
    workload = sessions()
    assert (workload.sessions, workload.closed_loop) == (5, True)
    closed = replace(world(), arrivals=sim.ClosedLoop(sessions=2))
    rows = sim.run(workload, closed).rows
    for session in range(5):
        own = rows["session"] == session
        pauses = rows["arrived_ms"][own][1:] - rows["finished_ms"][own][:-1]
        np.testing.assert_allclose(pauses, 500.0, atol=1e-3)


def test_a_cap_lets_sessions_in_one_after_the_other() -> None:
    capped = replace(world(), arrivals=sim.ClosedLoop(sessions=5, session_cap=1))
    rows = sim.run(sessions(), capped).rows
    owns = [rows["session"] == session for session in range(5)]
    begun = np.sort([rows["sent_ms"][own].min() for own in owns])
    ended = np.sort([rows["finished_ms"][own].max() for own in owns])
    assert (begun[1:] >= ended[:-1]).all()
    with pytest.raises(ConfigError, match=r"arrivals\.session_cap is 0: give more than 0"):
        sim.run(sessions(), replace(world(), arrivals=sim.ClosedLoop(session_cap=0)))


def test_a_policy_is_a_name_a_mapping_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[schedule]\nprofile = "least-request"\n')
    named, mapped, filed = (
        sim.run(prompts(), world(), policy).summary
        for policy in ("least-request", {"schedule": {"profile": "least-request"}}, file)
    )
    assert named == mapped == filed
    assert named != sim.run(prompts(), world(), "default").summary


@pytest.mark.parametrize("policy", sim.builtin_policies())
def test_every_policy_serves_everything(policy: str) -> None:
    assert sim.run(prompts(120), world(), policy).summary.served == 120


def test_the_command_line_comes_to_the_same_figures(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    lines = [
        {
            "timestamp": 40 * row,
            "input_length": 1600 + row,
            "output_length": 20 + row % 7,
            "hash_ids": [row % 4, 100 + row % 4, 1000 + row, 2000 + row],
        }
        for row in range(150)
    ]
    trace.write_text("\n".join(map(json.dumps, lines)))
    command = [
        *(sys.executable, "-m", "llmd_sched", "sim", "--json", "--trace", str(trace)),
        *("--format", "mooncake", "--policy", "lmetric", "--replicas", "2", "--rate", "9"),
    ]
    told = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    workload = sim.Workload.from_mooncake(trace)
    same = sim.World(replicas=2).at_rate(9.0, jitter_ms=3000.0)
    summary = asdict(sim.run(workload, same, "lmetric", seed=1).summary)
    assert told == {"policy": "lmetric", "seed": 1, **summary}


def test_traces_are_read_from_paths_and_bytes(tmp_path: Path) -> None:
    session = {
        "block_size": 64,
        "requests": [
            {"in": 200, "out": 5, "think_time": 1.5, "h": [[0, 2]], "ids": [0, 1, 2]},
            {"in": 300, "out": 6, "think_time": 2.5, "h": [[0, 3]], "ids": [0, 1, 2, 3]},
        ],
    }
    text = json.dumps(session).encode()
    path = tmp_path / "sessions.jsonl"
    path.write_bytes(text)
    for read in (sim.Workload.from_agent_sessions, sim.Workload.from_prompt_sessions):
        workload = read(text)
        assert workload == read(path) == read(str(path))
        assert workload.at_ms.tolist() == [1500.0, 2500.0]
        assert (workload.sessions, workload.closed_loop, workload.block_size) == (1, True, 64)
        assert workload.key_offsets.tolist() == [0, 3, 7]
    with pytest.raises(WorkloadError, match="trace: line 1 of the trace"):
        sim.Workload.from_mooncake(text)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl"):
        sim.Workload.from_mooncake(tmp_path / "nowhere.jsonl")


def test_tool_calls_come_between() -> None:
    mixed = prompts(100).with_tool_calls(seed=3)
    assert 200 < len(mixed) < 300
    assert mixed == prompts(100).with_tool_calls(seed=3)


def test_a_workload_pickles_as_its_arrays() -> None:
    workload = prompts(30)
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(workload, protocol=5, buffer_callback=buffers.append)
    assert len(buffers) == 6, "columns go out of band"
    again = pickle.loads(pickled, buffers=buffers)
    assert again == workload
    assert (again.keys == workload.keys).all()
    assert workload != prompts(30, seed=1)


def test_keys_are_given_flat_or_one_by_one() -> None:
    ragged = sim.Workload([0, 1], [40, 40], [8, 8], keys=[[1, 2], [3]], block_size=16)
    flat = sim.Workload([0, 1], [40, 40], [8, 8], [1, 2, 3], [0, 2, 3], block_size=16)
    assert ragged == flat
    assert flat.keys.tolist() == [1, 2, 3]
    cut = sim.Workload([0], [20], [8], keys=[[1, 2]], block_size=16)
    assert cut.keys.tolist() == [1], "the second block is not full"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"at_ms": [0.0, -1.0]}, r"at_ms\[1\] is -1: give finite"),
        ({"at_ms": [0.0, float("nan")]}, r"at_ms\[1\] is NaN"),
        ({"at_ms": [[0.0, 1.0]]}, r"at_ms is of shape \[1, 2\]"),
        ({"prompt_tokens": [40, 0]}, r"prompt_tokens\[1\] is 0: give 1 to 4294967295"),
        ({"prompt_tokens": [40, 2**32]}, r"prompt_tokens\[1\] is 4294967296"),
        ({"prompt_tokens": [40.5, 1.0]}, "prompt_tokens is of dtype float64"),
        ({"output_tokens": [8]}, "output_tokens is of 1 requests, at_ms of 2"),
        ({"keys": [[1]]}, "keys is of 1 requests, at_ms of 2"),
        ({"keys": [[1], ["a"]]}, r"keys\[1\] is of dtype"),
        ({"keys": [1, 2, 3], "key_offsets": [0, 2, 9]}, "ascending from 0 to 3"),
        ({"session_offsets": [0, 2, 1, 2]}, "session_offsets: .* from 0 to 2"),
        ({"block_size": 0}, "blocks of 0 tokens"),
    ],
)
def test_workloads_that_cannot_be_say_why(changes: dict[str, object], message: str) -> None:
    good = {
        "at_ms": [0.0, 1.0],
        "prompt_tokens": [40, 40],
        "output_tokens": [8, 8],
        "keys": [[1], [2]],
    }
    with pytest.raises(WorkloadError, match=message):
        sim.Workload(**{**good, **changes})


def test_a_workload_without_requests_is_refused() -> None:
    with pytest.raises(WorkloadError, match="no request"):
        sim.Workload([], [], [], keys=[])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 0}, "no engine"),
        ({"routers": 0}, "no router"),
        ({"kv_lag_ms": -1.0}, "world.kv_lag_ms is -1: give 0 or more"),
        ({"kv_lag_ms": float("inf")}, "kv_lag_ms is inf: numbers must be finite"),
        ({"warmup_share": 1.0}, "world.warmup_share is 1"),
        ({"hold_ms": -1}, "world: invalid value: integer `-1`"),
        ({"ends": "maybe"}, "world: unknown variant `maybe`, expected one of `told`, `untold`"),
        ({"slo": sim.Slo(ttft_ms=0.0)}, "world.slo.ttft_ms is 0: give more than 0"),
        ({"arrivals": sim.OpenLoop(0.0)}, "world.arrivals.requests_per_s is 0"),
        ({"arrivals": sim.ClosedLoop()}, "times are arrivals, not pauses"),
        ({"engine": sim.Engine("gpt-2")}, 'profile "gpt-2" is unknown: use llama-3.1-8b_h100_tp1'),
        ({"engine": sim.Engine((1, 2, 3, 4, 5, 6))}, "engine 0: say kv_tokens"),
        ({"engine": replace(SMALL, kv_tokens=10)}, "kv_blocks = 0 is out of range"),
    ],
)
def test_worlds_that_cannot_be_say_why(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sim.run(prompts(2), replace(world(), **changes))


def test_a_policy_that_is_unknown_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="round-robin"):
        sim.run(prompts(2), world(), "round-bobbin")
    with pytest.raises(ConfigError, match=r"schedule\.profil: unknown field"):
        sim.run(prompts(2), world(), {"schedule": {"profil": "default"}})


def test_rows_are_a_table_of_arrow() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    result = sim.run(prompts(50), world())
    table = result.to_arrow()
    assert table.num_rows == 50
    assert table.column("fate").to_pylist() == ["served"] * 50
    for name in ("ttft_ms", "prompt_tokens", "engine"):
        np.testing.assert_array_equal(table.column(name).to_numpy(), result.rows[name])
    address = table.column("ttft_ms").chunk(0).buffers()[1].address
    assert address == result.rows["ttft_ms"].ctypes.data, "shared, not copied"
    assert pyarrow.table(result).equals(table), "by the PyCapsule interface"
