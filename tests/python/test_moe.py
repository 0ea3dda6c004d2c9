"""Experts and ranks from Python: arrays in, arrays out, mistakes named."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llmd_sched import ConfigError, moe
from llmd_sched.vllm import eplb

LOAD = np.random.default_rng(0).lognormal(6, 0.7, (4, 256))


def run_cli(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "llmd_sched", "moe", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "load.npy"
    np.save(path, LOAD)
    return path


def test_every_dtype_of_numbers_and_nested_lists_are_loads() -> None:
    placed = [
        moe.place_experts(load, slots=288, gpus=32).physical_to_logical.tolist()
        for load in (LOAD.round(), LOAD.round().astype(np.int64), LOAD.round().tolist())
    ]
    assert placed[0] == placed[1] == placed[2]
    assert np.asarray(placed[0]).shape == (4, 288)


def test_shares_of_an_expert_add_up_from_every_node() -> None:
    placed = moe.place_experts(LOAD, slots=288, gpus=32, nodes=4, policy="near", sharing="weighted")
    assert placed.shares_from_node is not None
    for layer, experts in enumerate(placed.physical_to_logical):
        for shares in (placed.shares[layer], *placed.shares_from_node[layer]):
            assert np.bincount(experts, shares) == pytest.approx(np.ones(256))
    assert placed.remote_share(LOAD).mean() < 0.65
    assert moe.place_experts(LOAD, slots=288, gpus=32).shares_from_node is None


def test_dead_ranks_hold_nothing_and_their_experts_are_elsewhere() -> None:
    old = moe.place_experts(LOAD, slots=288, gpus=32).physical_to_logical
    new = moe.rebalance_experts(LOAD, old, gpus=32, dead=[3]).physical_to_logical
    assert (new[:, 27:36] == -1).all()
    assert all(set(layer) - {-1} == set(range(256)) for layer in new.tolist())
    plan = moe.plan_migration(old, new, gpus=32, dead=[3])
    assert plan["moves"] == sum(len(batch["transfers"]) for batch in plan["batches"]) > 0


def test_equal_seeds_play_equal_steps() -> None:
    play = [moe.simulate_expert_steps(LOAD, slots=288, gpus=32, nodes=4, steps=60) for _ in "ab"]
    assert play[0] == play[1]
    assert len(play[0]["rebalanced"]) == 1


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: moe.place_experts([1, 2], slots=2, gpus=2), "two-dimensional"),
        (lambda: moe.place_experts([["a"]], slots=2, gpus=2), "of dtype"),
        (lambda: moe.place_experts([[1, -1]], slots=2, gpus=2), "expert 1 in layer 0 is -1"),
        (lambda: moe.place_experts(LOAD, slots=100, gpus=10), "do not fit 100"),
        (lambda: moe.place_experts(LOAD, slots=256, gpus=7), "no multiple of gpus = 7"),
        (lambda: moe.place_experts(LOAD, slots=256, gpus=8, policy="best"), 'policy is "best"'),
        (lambda: moe.place_experts(LOAD, slots=256, gpus=8, model={"fase": 1}), "fase"),
        (lambda: moe.rebalance_experts(LOAD, [[-2]], gpus=1), "old holds -2"),
        (lambda: moe.place_experts(LOAD, slots=256, gpus=8).balance([[1]]), "not 1024"),
        (lambda: moe.simulate_ranks("fastest"), "fastest"),
        (lambda: moe.simulate_ranks("scored", rank=1), "rank"),
        (lambda: moe.RankScorer(0), "ranks = 0"),
        (lambda: moe.read_expert_load("/nowhere.npy"), "/nowhere.npy"),
        (lambda: eplb.Settings.read("best"), "begin with mend or place"),
        (lambda: eplb.Settings.read("mend,phase=decode"), "mend has no 'phase'"),
        (lambda: eplb.Settings.read("mend,moves=x"), "moves is 'x'"),
    ],
)
def test_mistakes_are_named(call: object, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        call()  # type: ignore[operator]
    assert said in str(raised.value)


def test_the_command_line_advises(recorded: Path) -> None:
    ran = run_cli("advise", recorded, "--gpus", 32, "--nodes", 4)
    assert ran.returncode == 0, ran.stderr
    assert "Balance experts, with 32 redundant ones (9 slots a GPU)" in ran.stdout
    ran = run_cli("advise", recorded, "--gpus", 32, "--nodes", 4, "--json")
    told = json.loads(ran.stdout)
    assert told == moe.advise_experts(LOAD, gpus=32, nodes=4)
    assert told["rows"][told["best"]]["redundant"] == 32


def test_the_command_line_plans_what_sglang_takes_and_mends_it(
    recorded: Path, tmp_path: Path
) -> None:
    out = tmp_path / "map.json"
    ran = run_cli("plan", recorded, "--gpus", 32, "--nodes", 4, "--slots", 288, "--out", out)
    assert ran.returncode == 0, ran.stderr
    placed = moe.place_experts(LOAD, slots=288, gpus=32, nodes=4)
    assert json.loads(out.read_text()) == json.loads(moe.sglang_expert_location(placed))
    drifted = tmp_path / "drifted.json"
    tokens = LOAD * np.random.default_rng(1).lognormal(0, 0.1, LOAD.shape)
    drifted.write_text(json.dumps({"logical_count": [tokens.tolist()]}))
    ran = run_cli(
        "plan", drifted, "--gpus", 32, "--nodes", 4, "--slots", 288, "--old", out, "--steps", 1e6
    )
    assert ran.returncode == 0, ran.stderr
    assert "moving pays within 1000000 steps" in ran.stdout


def test_the_command_line_simulates_and_reads_vllm_s_log(recorded: Path, tmp_path: Path) -> None:
    ran = run_cli("simulate", recorded, "--gpus", 32, "--nodes", 4, "--slots", 288, "--steps", 60)
    assert ran.returncode == 0, ran.stderr
    rows = {line[:12].strip(): line[12:].split() for line in ran.stdout.splitlines()[1:]}
    assert float(rows["mended"][0]) < float(rows["unbalanced"][0])
    assert int(rows["mended"][2]) < int(rows["placed anew"][2])
    log = tmp_path / "vllm.log"
    log.write_text("EPLB step: 5 for model m: avg_tokens=10.00, max_tokens=20, balancedness=.5")
    ran = run_cli("advise", "--vllm-log", log, "--gpus", 32)
    assert ran.returncode == 0, ran.stderr
    assert "fullest GPU over the mean 2.000; chance alone makes 1.065" in ran.stdout
