"""Sweeps: every combination, in order, to the same table wherever it is played."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace

import pytest
from llmd_sched import ConfigError, MissingDependencyError, sim
from llmd_sched._core import errand_run, run_cli
from sim_worlds import prompts, world

WORLDS = {"two": world(2), "four": world(4)}
POLICIES = ["round-robin", "default"]


def test_a_row_is_a_run() -> None:
    workload = prompts(120)
    table = sim.sweep(workload, WORLDS, policies=POLICIES, seeds=[3, 5])
    columns = table.columns
    assert len(table) == 8
    assert columns["world"].tolist() == ["two"] * 4 + ["four"] * 4
    assert columns["policy"].tolist() == ["round-robin", "round-robin", "default", "default"] * 2
    assert columns["seed"].tolist() == [3, 5] * 4
    alone = sim.run(workload, WORLDS["four"], "default", seed=5).summary
    assert table[7]["ttft_p50_ms"] == alone.ttft_p50_ms
    assert len(table.where(world="two", seed=3)) == 2
    assert "slo_attainment" in repr(table).splitlines()[0]
    assert len(repr(table).splitlines()) == 9


def test_threads_do_not_change_it() -> None:
    jittered = {name: it.at_rate(50.0, jitter_ms=500.0) for name, it in WORLDS.items()}
    one, three = (
        sim.sweep(prompts(120), jittered, policies=["random", "default"], seeds=3, threads=threads)
        for threads in (1, 3)
    )
    assert one == three


def test_the_first_run_that_fails_ends_it() -> None:
    with pytest.raises(ConfigError, match="no engine"):
        sim.sweep(prompts(20), [world(2), replace(world(), replicas=0)], seeds=4)


def test_policies_need_names() -> None:
    config = {"flow": {}}
    with pytest.raises(ConfigError, match="2 policies have 1 names: give a mapping"):
        sim.sweep(prompts(2), world(), policies=[config, config])
    table = sim.sweep(prompts(2), world(), policies={"a": config, "b": config})
    assert table.columns["policy"].tolist() == ["a", "b"]
    with pytest.raises(ConfigError, match="nothing to play"):
        sim.sweep(prompts(2), world(), seeds=[])


@pytest.mark.parametrize("has_tqdm", [False, True])
def test_progress_is_told_where_it_is_wanted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, has_tqdm: bool
) -> None:
    if has_tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    sim.sweep(prompts(20), world(), seeds=3, progress=True)
    assert ("3/3" if has_tqdm else "3 of 3 runs") in capsys.readouterr().err
    sim.sweep(prompts(20), world(), seeds=3)
    assert capsys.readouterr().err == "", "no terminal, nothing told"


def test_without_ray_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'llmd-sched\[ray\]'"):
        sim.sweep(prompts(2), world(), ray=True)


def test_without_pyarrow_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'llmd-sched\[arrow\]'"):
        sim.run(prompts(2), world()).to_arrow()
    with pytest.raises(MissingDependencyError):
        sim.sweep(prompts(2), world()).to_arrow()


def test_ray_is_imported_only_for_ray() -> None:
    code = "import sys, llmd_sched.sim; assert not {'ray', 'pyarrow', 'tqdm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.timeout(300)
def test_ray_comes_to_the_same_table(ray_cluster: str) -> None:
    workload = prompts(120)
    local = sim.sweep(workload, WORLDS, policies=POLICIES, seeds=2)
    assert sim.sweep(workload, WORLDS, policies=POLICIES, seeds=2, ray=True) == local


SIM = [
    *("llmd-sched", "sim", "--format", "chats", "--requests", "300", "--replicas", "2"),
    *("--policy", "round-robin,default", "--seeds", "2"),
]


@pytest.mark.timeout(300)
def test_the_command_line_plays_on_ray_too(
    ray_cluster: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def printed(*options: str) -> list[str]:
        assert run_cli([*SIM, *options]) == 0
        return capfd.readouterr().out.splitlines()

    here = printed("--json")
    # On threads a line is printed as soon as its run is done.
    assert len(here) == 4
    assert sorted(printed("--json", "--ray")) == sorted(here)
    assert printed(f"--ray={ray_cluster}") == printed()


def test_the_command_line_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run_cli([*SIM, "--ray"]) == 1
    assert "pip install 'llmd-sched[ray]'" in capfd.readouterr().err
    with pytest.raises(ConfigError, match="not what llmd-sched"):
        errand_run(b"", 0)


@pytest.mark.timeout(300)
def test_a_run_that_fails_on_ray_fails_as_here(ray_cluster: str) -> None:
    with pytest.raises(ConfigError, match="no engine"):
        sim.sweep(prompts(20), [world(2), replace(world(), replicas=0)], ray=True)


@pytest.mark.timeout(300)
def test_a_cluster_that_was_connected_to_is_left_again(ray_cluster: str) -> None:
    code = f"""
        import ray
        from llmd_sched import sim
        workload = sim.Workload([0.0, 1.0], [100, 100], [5, 5], keys=[[1], [1]])
        table = sim.sweep(workload, sim.World(replicas=1), ray={{"address": {ray_cluster!r}}})
        assert len(table) == 1
        assert not ray.is_initialized()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
