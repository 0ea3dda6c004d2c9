"""NIXL reads of another process's blocks, permuted.

``nixl_read.py LAYERS BLOCKS BLOCK_BYTES ROUNDS`` prints a line of JSON a round, as the Rust
bench beside it does. UCX_TLS says by which transports.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from nixl_cu12._api import nixl_agent, nixl_agent_config


def prepare(name: str, total: int, seed: int) -> tuple[Any, Any]:
    agent = nixl_agent(name, nixl_agent_config(backends=[]))
    # Shared memory alone cannot tell that a peer died, and UCX refuses it where that is asked for:
    # not to ask is the fastest that NIXL gets within a host.
    agent.create_backend("UCX", {"ucx_error_handling_mode": "none"})
    memory = np.full(total, seed, dtype=np.uint8)
    agent.register_memory([(memory.ctypes.data, total, 0, "")], "DRAM")
    return agent, memory


def own(pipe: Connection, total: int) -> None:
    agent, memory = prepare("far", total, 1)
    pipe.send((agent.get_agent_metadata(), memory.ctypes.data))
    pipe.recv()


def blocks_of(agent: Any, start: int, offsets: np.ndarray, block_bytes: int) -> Any:
    rows = np.empty((len(offsets), 3), dtype=np.uint64)
    rows[:, 0] = start + offsets
    rows[:, 1] = block_bytes
    rows[:, 2] = 0
    return agent.get_xfer_descs(rows, "DRAM")


def main() -> None:
    layers, blocks, block_bytes, rounds = (int(word) for word in sys.argv[1:5])
    total = layers * blocks * block_bytes
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    owner = context.Process(target=own, args=(theirs, total), daemon=True)
    owner.start()
    agent, memory = prepare("near", total, 9)
    metadata, far_start = pipe.recv()
    far = agent.add_remote_agent(metadata)

    layer = np.repeat(np.arange(layers, dtype=np.uint64), blocks)
    block = np.tile(np.arange(blocks, dtype=np.uint64), layers)
    near_offsets = (layer * np.uint64(blocks) + block) * np.uint64(block_bytes)
    permuted = (block * np.uint64(37) + layer) % np.uint64(blocks)
    far_offsets = (layer * np.uint64(blocks) + permuted) * np.uint64(block_bytes)
    near_list = agent.prep_xfer_dlist(
        "", blocks_of(agent, memory.ctypes.data, near_offsets, block_bytes)
    )
    far_list = agent.prep_xfer_dlist(far, blocks_of(agent, far_start, far_offsets, block_bytes))
    indices = np.arange(layers * blocks, dtype=np.int32)
    handle = agent.make_prepped_xfer("READ", near_list, indices, far_list, indices, b"")
    for round_ in range(rounds + 1):
        start = time.perf_counter()
        state = agent.transfer(handle)
        while state == "PROC":
            state = agent.check_xfer_state(handle)
        took = time.perf_counter() - start
        if state != "DONE":
            sys.exit(f"NIXL ended in {state}")
        if round_ > 0:
            print(json.dumps({"nixl": took}), flush=True)
    assert memory[0] == 1
    pipe.send(None)
    owner.join()


if __name__ == "__main__":
    main()
