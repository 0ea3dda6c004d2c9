"""The store of KV blocks from Python: arrays in, arrays out, between processes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llmd_sched import ConfigError, kv
from llmd_sched._core import KvStore

BLOCK = 4096


@pytest.fixture
def name() -> Iterator[str]:
    name = f"test-{os.getpid()}"
    kv.Store.unlink(name)
    yield name
    kv.Store.unlink(name)


def hashes(*numbers: int) -> list[bytes]:
    return [number.to_bytes(32, "little") for number in numbers]


def blocks(*numbers: int) -> np.ndarray:
    """Rows that only their numbers have."""
    return np.stack([np.random.default_rng(it).integers(0, 256, BLOCK, np.uint8) for it in numbers])


def open_store(name: str, **settings: object) -> kv.Store:
    return kv.Store(name, **{"block_bytes": BLOCK, "host_bytes": 16 * BLOCK, **settings})


def test_blocks_come_back_in_any_rows_of_any_arrays(name: str) -> None:
    store = open_store(name)
    keys = np.arange(6 * 4 * 128, dtype=np.float32).reshape(6, 4, 128)[:, :2]
    values = -keys.copy()
    assert store.put(hashes(1, 2, 3), [keys, values], rows=[5, 0, 3]) == 3

    keys_back, values_back = np.zeros((4, 2, 128), np.float32), np.zeros((4, 2, 128), np.float32)
    there = store.get(hashes(3, 9, 1), [keys_back, values_back], rows=[2, 1, 0])

    assert there.tolist() == [True, False, True]
    assert (keys_back[2] == keys[3]).all()
    assert (values_back[2] == values[3]).all()
    assert (keys_back[0] == keys[5]).all()
    assert (values_back[0] == values[5]).all()
    assert not keys_back[3].any()


def test_what_can_not_be_is_refused_with_the_remedy(name: str) -> None:
    store = open_store(name)
    with pytest.raises(ConfigError, match="rows go from 0 to 2: the array has rows 0 to 1"):
        store.put(hashes(1, 2, 3), blocks(1, 2))
    with pytest.raises(ConfigError, match="not contiguous"):
        store.put(hashes(1), np.zeros((2, 8, 8)).transpose(0, 2, 1)[:, :, ::2])
    with pytest.raises(ConfigError, match="in a bytes: use numpy arrays"):
        store.put(hashes(1), b"0" * BLOCK)
    with pytest.raises(ConfigError, match="8192 bytes does not fit"):
        store.put(hashes(1), np.zeros((1, 2 * BLOCK), np.uint8))
    with pytest.raises(ConfigError, match="a row twice"):
        store.get(hashes(1, 2), blocks(1, 2), rows=[1, 1])
    readonly = blocks(1)
    readonly.flags.writeable = False
    with pytest.raises(ConfigError, match="read-only"):
        store.get(hashes(1), readonly)
    with pytest.raises(ConfigError, match="slots 16, not 8"):
        open_store(name, host_bytes=8 * BLOCK)
    with pytest.raises(ConfigError, match="without a slash"):
        open_store("../elsewhere")
    with pytest.raises(ConfigError, match="density"):
        open_store(name, eviction="random")
    with pytest.raises(ConfigError, match="disk_folder"):
        open_store(name, disk_bytes=1 << 20)
    with pytest.raises(ConfigError, match="1: give one a block and piece"):
        KvStore(name, block_bytes=BLOCK, host_bytes=16 * BLOCK).get(
            hashes(1, 2), np.zeros(1, np.uint64), np.array([BLOCK], np.uint64)
        )


def test_tenants_and_models_find_none_of_each_others_blocks(name: str) -> None:
    stores = [
        open_store(name, fingerprint=fingerprint, salt=salt)
        for fingerprint in (b"llama", b"qwen")
        for salt in (b"", b"tenant")
    ]
    for number, store in enumerate(stores):
        assert store.matched(hashes(7)) == 0
        assert store.put(hashes(7), blocks(number)) == 1
    for number, store in enumerate(stores):
        back = np.zeros((1, BLOCK), np.uint8)
        assert store.get(hashes(7), back).all()
        assert (back == blocks(number)).all()


def test_the_disk_keeps_what_memory_can_not(name: str, tmp_path: Path) -> None:
    settings = {"disk_bytes": 100 * BLOCK, "disk_folder": tmp_path / "blocks", "eviction": "lru"}
    store = open_store(name, **settings)
    for first in range(0, 64, 8):
        numbers = range(first, first + 8)
        assert store.put(hashes(*numbers), blocks(*numbers)) == 8
    assert store.counts()["disk"]["stored"] == 48

    back = np.zeros((8, BLOCK), np.uint8)
    assert store.get(hashes(*range(8)), back).all()
    assert (back == blocks(*range(8))).all()
    del store
    kv.Store.unlink(name)
    again = open_store(name, **settings)
    assert again.matched(hashes(*range(8))) == 8
    assert again.get(hashes(*range(8)), back).all()
    assert (back == blocks(*range(8))).all()


def test_leased_blocks_stay(name: str) -> None:
    store = open_store(name, eviction="lru")
    store.put(hashes(0, 1, 2), blocks(0, 1, 2))
    lease = store.pin(hashes(0, 1, 2, 99), lease_s=600)
    assert lease.blocks == 3
    for number in range(100, 140):
        store.put(hashes(number), blocks(number))
    assert store.matched(hashes(0, 1, 2)) == 3

    store.unpin(lease)
    for number in range(200, 240):
        store.put(hashes(number), blocks(number))
    assert store.matched(hashes(0, 1, 2)) == 0


def test_threads_share_one_store(name: str) -> None:
    store = open_store(name)
    wrong: list[int] = []

    def work(seed: int) -> None:
        back = np.zeros((4, BLOCK), np.uint8)
        for turn in range(50):
            numbers = range((seed * 5 + turn) % 30, (seed * 5 + turn) % 30 + 4)
            store.put(hashes(*numbers), blocks(*numbers))
            there = store.get(hashes(*numbers), back)
            wrong.extend(np.flatnonzero(there & (back != blocks(*numbers)).any(axis=1)))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.counts()["host"]["corrupt"] == 0


KILLED = """
import sys, numpy as np
from llmd_sched import kv
store = kv.Store(sys.argv[1], block_bytes=4096, host_bytes=16 * 4096)
number = 0
while True:
    number += 1
    rows = np.full((2, 4096), number % 251, np.uint8)
    store.put([(number * 2 + it).to_bytes(32, "little") for it in range(2)], rows)
    print(number, flush=True)
"""


def test_a_killed_process_leaves_whole_blocks(name: str) -> None:
    store = open_store(name)
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", KILLED, name], stdout=subprocess.PIPE, text=True
        ) as victim:
            assert victim.stdout is not None
            last = max(int(victim.stdout.readline()) for _ in range(20))
            victim.send_signal(signal.SIGKILL)
        back = np.zeros((1, BLOCK), np.uint8)
        found = 0
        for number in range(1, last + 1000):
            for it in range(2):
                if store.get([(number * 2 + it).to_bytes(32, "little")], back).all():
                    assert (back == number % 251).all()
                    found += 1
        assert found > 0
    assert store.counts()["host"]["corrupt"] == 0


def test_tensors_are_read_and_written_in_place(name: str) -> None:
    torch = pytest.importorskip("torch")
    store = open_store(name)
    cache = torch.arange(4 * 512, dtype=torch.bfloat16).reshape(4, 2, 256)
    assert store.put(hashes(1, 2), cache, rows=[3, 1]) == 2
    back = torch.zeros_like(cache)
    assert store.get(hashes(1, 2), back, rows=[0, 2]).all()
    assert torch.equal(back[0], cache[3])
    assert torch.equal(back[2], cache[1])
