"""The brain inside a real vLLM's processes: its waiting queue, its ranks, its statistics."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ports import PortRange
from vllm_engine import EngineConfig, Installation, VllmEngine

ROOT = Path(__file__).resolve().parents[2]


def inside(
    installation: Installation,
    importable: str,
    log: Path,
    *arguments: str | int,
    script: str = "vllm_inside.py",
) -> dict[str, Any]:
    """What a script answers that runs in vLLM's environment."""
    said = output(installation, importable, log, Path(__file__).with_name(script), *arguments)
    answers = [line for line in said.splitlines() if line.startswith("ANSWER ")]
    assert len(answers) == 1, f"{log}:\n{log.read_text()[-8000:]}"
    answer: dict[str, Any] = json.loads(answers[0].removeprefix("ANSWER "))
    return answer


def output(
    installation: Installation, importable: str, log: Path, script: Path, *arguments: str | int
) -> str:
    """What it prints."""
    engine = VllmEngine(installation, EngineConfig(), log)
    environment = engine.environment() | {"PYTHONPATH": importable}
    # Ray's are a small cluster's of their own, which nobody else reaches.
    environment |= {"RAY_AUTH_MODE": "disabled", "RAY_SERVE_HAPROXY_METRICS_PORT": "0"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}
    engine.close()
    ran = subprocess.run(
        [
            installation.environment / "bin" / "python",
            script,
            *map(str, arguments),
        ],
        env=environment,
        cwd=installation.models,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    log.write_text(ran.stdout + ran.stderr)
    return ran.stdout


@pytest.mark.timeout(600)
def test_the_waiting_queue_keeps_what_vllm_s_own_keeps(
    vllm_installation: Installation, importable: str, tmp_path: Path
) -> None:
    answer = inside(vllm_installation, importable, tmp_path / "queue.log", "queue")
    assert answer["requests"] > 5_000
    assert (answer["unbuilt"], answer["left"]) == ([], True)


@pytest.mark.timeout(600)
def test_what_is_due_first_begins_first_and_outputs_stay_what_they_were(
    vllm_installation: Installation, importable: str, tmp_path: Path
) -> None:
    plain = inside(
        vllm_installation, importable, tmp_path / "plain.log", "turns", "tiny-llama", "none"
    )
    name = "TurnScheduler" if plain["scheduler"].startswith("Async") else "SyncTurnScheduler"
    turns = inside(
        vllm_installation,
        importable,
        tmp_path / "turns.log",
        "turns",
        "tiny-llama",
        f"llmd_sched.vllm.{name}",
    )
    assert turns["scheduler"] == name
    # At most two at a time: as they came, and those that are due first.
    assert plain["steps"] == [[0, 1], [2], [3], [4], [5]]
    assert turns["steps"] == [[1, 3], [5], [2], [0], [4]]
    # They outgrow the cache, so that some are preempted, and come back in their turn.
    assert min(plain["preemptions"], turns["preemptions"]) > 0
    assert turns["outputs"] == plain["outputs"]
    assert turns["waiting"] == 0


@pytest.mark.timeout(600)
def test_ranks_are_chosen_by_what_they_hold(
    vllm_installation: Installation, importable: str, tmp_path: Path
) -> None:
    ports = PortRange(5)
    try:
        answer = inside(
            vllm_installation,
            importable,
            tmp_path / "ranks.log",
            "ranks",
            "tiny-llama",
            ports.first,
        )
    finally:
        ports.close()
    # Each conversation stays where it began, and both ranks have some.
    assert all(len(set(ranks)) == 1 for ranks in answer["served"])
    assert {ranks[0] for ranks in answer["served"]} == {0, 1}
    # What the engine found in its cache is what the router knew, of every request.
    assert answer["wrong"] == []
    assert min(answer["hits"]) > 0
    assert answer["inflight"] == [0, 0]
    assert answer["fallbacks"] == 0
    assert answer["feed"]["bad_messages"] == 0
    assert answer["feed"]["reports"] > 0


@pytest.mark.timeout(600)
def test_ray_s_own_llm_replicas_are_known_to_the_token(
    vllm_installation: Installation, importable: str, tmp_path: Path
) -> None:
    ports = PortRange(1)
    try:
        answer = inside(
            vllm_installation,
            importable,
            tmp_path / "ray.log",
            vllm_installation.models / "tiny-llama",
            ports.first,
            script="vllm_ray.py",
        )
    finally:
        ports.close()
    # All that came before is found, but for the first turn: every conversation stays.
    over_http, by_handle = answer["over_http"], answer["by_handle"]
    assert over_http["asked"] == 6 * 96 * (1 + 2 + 3 + 4 + 5)
    assert over_http["found"] == 6 * 96 * (1 + 2 + 3 + 4)
    assert by_handle["found"] == by_handle["router"]["requests"]["matched_tokens"] > 0
    assert (by_handle["fallbacks"], by_handle["bad_reports"]) == (0, 0)
    assert by_handle["reports"] > 0


@pytest.mark.timeout(600)
def test_behind_haproxy_the_builder_s_router_knows_what_vllm_holds(
    vllm_installation: Installation, importable: str, tmp_path: Path
) -> None:
    answer = inside(
        vllm_installation,
        importable,
        tmp_path / "haproxy.log",
        vllm_installation.models / "tiny-llama",
        script="vllm_ray_ingress.py",
    )
    # What the router expected is what the engines counted, to the token, and every turn but the
    # first found all that came before.
    assert answer["expected"] == answer["found"] == answer["possible"]
    assert sum(answer["hits_by_replica"].values()) == answer["found"]
    # Both engines had some of the conversations.
    assert len(answer["hits_by_replica"]) == 2
    assert min(answer["hits_by_replica"].values()) > 0
    assert (answer["fallbacks"], answer["failed"], answer["bad_reports"]) == (0, 0, 0)


# Of the tiny model, as its blocks have to be.
TINY = {
    "dtype": "bfloat16",
    "max_model_len": 1024,
    "block_size": 32,
    "enforce_eager": True,
    "num_gpu_blocks_override": 64,
}


@pytest.mark.timeout(600)
def test_the_example_of_turns_runs(
    vllm_installation: Installation, importable: str, tmp_path: Path
) -> None:
    said = output(
        vllm_installation,
        importable,
        tmp_path / "turns.log",
        ROOT / "examples" / "vllm_turns.py",
        *("--model", "tiny-llama", "--scheduler", "SyncTurnScheduler"),
        *("--engine", json.dumps(TINY)),
    )
    (line,) = [it for it in said.splitlines() if it.startswith("began in this order")]
    due_ms = [int(it) for it in line.split() if it.isdigit()]
    assert due_ms == sorted(due_ms), (tmp_path / "turns.log").read_text()[-4000:]
    assert len(due_ms) == 6


@pytest.mark.timeout(600)
def test_the_example_of_ranks_runs(
    vllm_installation: Installation, importable: str, tmp_path: Path
) -> None:
    ports = PortRange(4)
    try:
        said = output(
            vllm_installation,
            importable,
            tmp_path / "ranks.log",
            ROOT / "examples" / "vllm_ranks.py",
            *("--model", "tiny-llama", "--port", ports.first, "--engine", json.dumps(TINY)),
        )
    finally:
        ports.close()
    lines = [line.split() for line in said.splitlines()]
    figures = {it[-2]: int(it[-1]) for it in lines if it[-1:] and it[-1].isdigit()}
    # Each of the four conversations repeats its 96, 192 and 288 tokens.
    assert (figures["asked"], figures["found"]) == (3_840, 4 * (96 + 192 + 288))
