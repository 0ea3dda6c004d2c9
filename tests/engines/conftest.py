"""Fixtures that lend real engines to the tests of this folder.

LLMD_REQUIRE is a comma-separated list of what must not be missing: with `engines` in it, an absent
vLLM fails the tests that want one instead of skipping them.
"""

import os
from collections.abc import Iterator

import pytest
from vllm_engine import EngineConfig, Installation, VllmEngine

# A pool that a handful of conversations overflow: an index that misses a removal is found out.
PAIR = EngineConfig(num_blocks=48, max_model_len=1024)


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
