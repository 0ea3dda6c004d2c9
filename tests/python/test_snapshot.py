"""The index as a file: saved by one router, loaded by another that follows the same engines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from embedded_engine import EmbeddedEngine, embedded_engine
from llmd_sched import Router, SnapshotError

pytestmark = pytest.mark.timeout(60)
ARGUMENTS = ("--kv-blocks", "256", "--block-size", "16")
PROMPTS = [list(range(start, start + 300)) for start in range(0, 3000, 300)]


def matched(router: Router, tokens: list[int]) -> int:
    return int(router.match(tokens).matched_tokens[0])


@pytest.fixture
def engine() -> Iterator[EmbeddedEngine]:
    with embedded_engine(*ARGUMENTS, "--kv-events-buffer", "4") as engine:
        yield engine


@pytest.fixture
def saved(engine: EmbeddedEngine, tmp_path: Path) -> Path:
    """What a router knew that followed the engine from the start."""
    path = tmp_path / "index.llmd"
    with Router() as router:
        (endpoint,) = router.discover(engine.url)
        router.wait_kv_connected(endpoint)
        for sequence, prompt in enumerate(PROMPTS[:8]):
            engine.complete(prompt)
            router.wait_kv(endpoint, sequence)
        assert router.save_index(path) == {"endpoints": 1, "blocks": 8 * 18, "left_out": 0}
    assert list(path.parent.iterdir()) == [path]
    return path


def test_a_router_that_joins_late_knows_what_replay_has_forgotten(
    engine: EmbeddedEngine, saved: Path
) -> None:
    engine.complete(PROMPTS[8])
    with Router() as router:
        (endpoint,) = router.discover(engine.url)
        router.wait_kv(endpoint, 8)
        assert [matched(router, prompt) for prompt in PROMPTS[:9]] == [0] * 5 + [288] * 4

        assert router.load_index(saved) == {"endpoints": 1, "blocks": 8 * 18, "left_out": 0}
        router.wait_kv(endpoint, 8)
        assert [matched(router, prompt) for prompt in PROMPTS[:9]] == [288] * 9
        assert router.kv_position(endpoint).losses == 0

        # The stream goes on, and nothing was counted twice: all is gone when the engine says so.
        engine.post("/reset_prefix_cache")
        engine.complete(PROMPTS[9])
        router.wait_kv(endpoint, 9)
        assert [matched(router, prompt) for prompt in PROMPTS] == [0] * 9 + [288]


def test_blocks_that_were_loaded_are_evicted_with_the_engines(
    engine: EmbeddedEngine, saved: Path
) -> None:
    with Router() as router:
        (endpoint,) = router.discover(engine.url)
        router.load_index(saved)
        for sequence in range(8, 20):
            engine.complete(list(range(sequence * 1000, sequence * 1000 + 1000)))
            router.wait_kv(endpoint, sequence)
        assert [matched(router, prompt) for prompt in PROMPTS[:8]] == [0] * 8
        assert 0 < router.endpoint(endpoint).held_blocks <= 256


def test_what_another_engine_held_is_void(engine: EmbeddedEngine, saved: Path) -> None:
    port = int(engine.url.rsplit(":", 1)[1])
    engine.process.kill()
    engine.process.wait()
    with embedded_engine(*ARGUMENTS, port=port) as successor, Router() as router:
        (endpoint,) = router.discover(successor.url)
        successor.complete(PROMPTS[9])
        router.wait_kv(endpoint, 0)
        router.load_index(saved)
        while matched(router, PROMPTS[0]) or not matched(router, PROMPTS[9]):
            time.sleep(0.002)
        assert router.kv_position(endpoint).restarts == 1


def test_who_is_not_in_the_fleet_is_left_out(saved: Path, tmp_path: Path) -> None:
    with Router() as router:
        router.add_endpoint("http://elsewhere:1", model="m")
        assert router.load_index(saved) == {"endpoints": 0, "blocks": 0, "left_out": 1}
        # It has no events: what is believed of it is not saved.
        assert router.save_index(tmp_path / "other") == {
            "endpoints": 0,
            "blocks": 0,
            "left_out": 1,
        }


def test_a_file_that_cannot_be_is_refused(saved: Path, tmp_path: Path) -> None:
    whole = saved.read_bytes()
    broken = tmp_path / "broken"
    with Router() as router:
        for content, why in [
            (b"", "breaks off at byte 0"),
            (whole[:-1], "breaks off"),
            (whole[:200] + bytes([whole[200] ^ 1]) + whole[201:], "damaged at byte"),
            (b"PK" + whole[2:], "not a snapshot"),
            (whole[:6] + b"\x09" + whole[7:], "version 9"),
            (whole + b"\0", "behind its end|breaks off"),
        ]:
            broken.write_bytes(content)
            with pytest.raises(SnapshotError, match=why):
                router.load_index(broken)
        with pytest.raises(FileNotFoundError):
            router.load_index(tmp_path / "nowhere")
        with pytest.raises(FileNotFoundError):
            router.save_index(tmp_path / "nowhere" / "index")
        with pytest.raises(IsADirectoryError):
            router.save_index(tmp_path)
        assert not tmp_path.with_name(tmp_path.name + ".partial").exists()
    with Router(block_size=32) as router, pytest.raises(SnapshotError, match="block_size=16"):
        router.load_index(saved)
