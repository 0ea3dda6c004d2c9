"""Small workloads and worlds that the simulator's tests share."""

from __future__ import annotations

import numpy as np
from llmd_sched import sim

BLOCK_TOKENS = 64
SMALL = sim.Engine("llama-3.1-8b_h100_tp1", kv_tokens=400 * BLOCK_TOKENS)


def prompts(count: int = 300, gap_ms: float = 12.0, seed: int = 0) -> sim.Workload:
    """Prompts of 10 to 40 blocks, the first half of each shared by every fifth."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(10, 41, count)
    shared = rng.integers(0, 2**63, (5, 20), dtype=np.uint64)
    keys = [
        np.concatenate([shared[it % 5][: n // 2], rng.integers(0, 2**63, n - n // 2, np.uint64)])
        for it, n in enumerate(blocks)
    ]
    return sim.Workload(
        np.arange(count) * gap_ms,
        blocks * BLOCK_TOKENS + rng.integers(0, BLOCK_TOKENS, count),
        rng.integers(1, 120, count),
        keys,
        block_size=BLOCK_TOKENS,
    )


def world(replicas: int = 3) -> sim.World:
    """A few small engines; every request counts."""
    return sim.World(replicas=replicas, engine=SMALL, warmup_share=0.0)
