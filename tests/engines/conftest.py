"""Fixtures that lend real engines to the tests of this folder.

LLMD_REQUIRE is a comma-separated list of what must not be missing: with `engines` in it, an absent
vLLM fails the tests that want one instead of skipping them.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tomllib
from vllm_engine import EngineConfig, Installation, VllmEngine

# A pool that a handful of conversations overflow: an index that misses a removal is found out.
PAIR = EngineConfig(num_blocks=48, max_model_len=1024)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def vllm_installation() -> Installation:
    try:
        return Installation.find()
    except FileNotFoundError as absent:
        if "engines" in os.environ.get("LLMD_REQUIRE", "").split(","):
            pytest.fail(f"LLMD_REQUIRE names engines, but there is {absent}", pytrace=False)
        pytest.skip(str(absent))


@pytest.fixture(scope="session")
def vllm_pair(
    vllm_installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[VllmEngine, VllmEngine]]:
    """Two engines of one model, started side by side and shared by the whole session."""
    logs = tmp_path_factory.mktemp("vllm")
    first, second = (
        VllmEngine(vllm_installation, PAIR, logs / f"engine-{index}.log") for index in range(2)
    )
    try:
        for engine in (first, second):
            engine.start()
        for engine in (first, second):
            engine.wait_healthy()
        yield first, second
    finally:
        for engine in (first, second):
            engine.close()


@pytest.fixture(scope="session")
def vllm_single(vllm_pair: tuple[VllmEngine, VllmEngine]) -> VllmEngine:
    """For tests that need only one: the first of the pair, since a start costs half a minute."""
    return vllm_pair[0]


@pytest.fixture(scope="session")
def importable(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PYTHONPATH on which the package is as if it were installed, entry points included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    folder = tmp_path_factory.mktemp("installed")
    info = folder / "llmd_sched-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llmd-sched\nVersion: 0\n")
    lines = []
    for group, points in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {where}" for name, where in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    return f"{ROOT / 'python'}{os.pathsep}{folder}"
