"""Two real vLLM on one node, and the store of KV blocks that both load from and save to."""

from __future__ import annotations

import contextlib
import http.client
import json
import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from llmd_sched import kv
from vllm_engine import EngineConfig, EngineError, Installation, VllmEngine

ROOT = Path(__file__).resolve().parents[2]
BLOCK = 32
# 64 blocks, of which one is nobody's: a fourth of what the prompts below need.
CONFIG = EngineConfig(num_blocks=64, max_model_len=1024, python_path=str(ROOT / "python"))
PROMPT_BLOCKS = 13
PROMPTS = 20
# Of so few blocks, in front of them.
BOOKS_BYTES = 2 << 20


def store_config(store: str, host_gib: float = 0.25) -> EngineConfig:
    """An engine's, with the connector."""
    transfer = {
        "kv_connector": "LlmdConnector",
        "kv_connector_module_path": "llmd_sched.vllm",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"store": store, "host_gib": host_gib},
    }
    return replace(CONFIG, extra_arguments=("--kv-transfer-config", json.dumps(transfer)))


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    name = f"test-{os.getpid()}"
    yield name
    kv.Store.unlink(name)


@pytest.fixture(scope="module")
def engines(
    vllm_installation: Installation, store: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[VllmEngine, VllmEngine]]:
    logs = tmp_path_factory.mktemp("kv-store")
    config = store_config(store)
    pair = [VllmEngine(vllm_installation, config, logs / f"{name}.log") for name in ("a", "b")]
    try:
        for engine in pair:
            engine.start()
        for engine in pair:
            engine.wait_healthy()
        yield pair[0], pair[1]
    finally:
        for engine in pair:
            engine.close()


def prompt(number: int, blocks: int = PROMPT_BLOCKS) -> list[int]:
    """Blocks that no other prompt has, and a token more."""
    return [3 + (number * 131 + at * 17) % 900 for at in range(blocks * BLOCK + 1)]


def by_source(engine: VllmEngine, source: str) -> int:
    """Prompt tokens that came from somewhere."""
    return int(engine.metrics().total("vllm:prompt_tokens_by_source_total", source=source))


def computed(engine: VllmEngine) -> int:
    return by_source(engine, "local_compute")


def loaded(engine: VllmEngine) -> int:
    return by_source(engine, "external_kv_transfer")


@pytest.mark.timeout(600)
def test_an_engine_serves_what_only_the_other_has_computed(
    engines: tuple[VllmEngine, VllmEngine],
) -> None:
    a, b = engines
    asked = prompt(1)
    first = a.complete(asked, 12)
    before = loaded(b), computed(b)
    second = b.complete(asked, 12)
    assert second.token_ids == first.token_ids
    assert (loaded(b) - before[0], computed(b) - before[1]) == (PROMPT_BLOCKS * BLOCK, 1)
    # Another end to the same beginning, and nothing of another tenant's.
    other = asked[: 5 * BLOCK] + prompt(2)
    before = loaded(b), computed(b)
    b.complete(other, 2)
    assert loaded(b) == before[0]
    a.complete(other, 2)
    b.complete(asked, 2, cache_salt="another tenant")
    assert loaded(b) == before[0]


@pytest.mark.timeout(600)
def test_four_times_the_cache_is_recomputed_a_fifth_at_most(
    engines: tuple[VllmEngine, VllmEngine],
) -> None:
    a, _ = engines
    prompts = [prompt(100 + number) for number in range(PROMPTS)]
    first = [a.complete(asked, 8).token_ids for asked in prompts]
    before = computed(a)
    again = [a.complete(asked, 8).token_ids for asked in prompts]
    assert again == first
    recomputed = (computed(a) - before) / sum(map(len, prompts))
    assert recomputed <= 0.2, f"{recomputed:.1%} of the prompts' tokens were computed again"


@pytest.mark.timeout(600)
def test_damaged_bytes_are_computed_again(
    engines: tuple[VllmEngine, VllmEngine], store: str
) -> None:
    a, b = engines
    asked = prompt(300)
    first = a.complete(asked, 12)
    damage(store)
    second = b.complete(asked, 12)
    assert second.token_ids == first.token_ids


def damage(store: str) -> None:
    """Flips a bit in every 512 bytes of the blocks, which lie behind the books."""
    with (
        Path(f"/dev/shm/llmd-kv-{store}").open("r+b") as file,
        mmap.mmap(file.fileno(), 0) as memory,
    ):
        blocks = np.frombuffer(memory, np.uint8)[BOOKS_BYTES::512]
        used = blocks != 0
        blocks[used] ^= 1
        del blocks


@pytest.mark.timeout(600)
def test_a_killed_engine_takes_nothing_with_it(engines: tuple[VllmEngine, VllmEngine]) -> None:
    a, b = engines
    expected = b.complete(prompt(400), 8).token_ids
    # In the middle of computing, loading and saving.
    under_way = [threading.Thread(target=ask, args=(a, 500 + number)) for number in range(6)]
    for thread in under_way:
        thread.start()
    while not a.metrics().total("vllm:num_requests_running"):
        pass
    a.kill()
    for thread in under_way:
        thread.join()
    for number in range(6):
        b.complete(prompt(500 + number), 8)
    assert b.complete(prompt(400), 8).token_ids == expected
    a.start()
    a.wait_healthy()
    before = loaded(a)
    assert a.complete(prompt(400), 8).token_ids == expected
    assert loaded(a) - before == PROMPT_BLOCKS * BLOCK


def ask(engine: VllmEngine, number: int) -> None:
    # It is killed meanwhile.
    with contextlib.suppress(OSError, EngineError, http.client.HTTPException):
        engine.complete(prompt(number), 64)
