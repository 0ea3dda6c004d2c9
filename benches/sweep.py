"""A sweep on threads, and on processes that get a copy of the workload: CPU seconds of each.

CPU time, since wall time on a shared machine says little. Threads contend for one allocator,
processes start Python and copy the workload. Prints a line BENCH {json} last.
"""

from __future__ import annotations

import json
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
from llmd_sched import sim

REQUESTS, RUNS, BLOCK_TOKENS = 20_000, 8, 512


def workload() -> sim.Workload:
    """Prompts of 20 blocks, a quarter of each shared by every fiftieth."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 2**63, (REQUESTS, 20), dtype=np.uint64)
    keys[:, :5] = keys[np.arange(REQUESTS) % 50, :5]
    return sim.Workload(
        np.cumsum(rng.exponential(125.0, REQUESTS)),
        np.full(REQUESTS, 20 * BLOCK_TOKENS + 7),
        rng.integers(1, 200, REQUESTS),
        keys,
        block_size=BLOCK_TOKENS,
    )


def cpu_s() -> float:
    """Of this process and of the children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(it.ru_utime + it.ru_stime for it in used)


def play(given: sim.Workload, seed: int) -> float:
    """One run; its figure."""
    return sim.run(given, sim.World(replicas=8), seed=seed).summary.ttft_p50_ms


def main() -> None:
    given = workload()
    start = cpu_s()
    table = sim.sweep(given, sim.World(replicas=8), seeds=RUNS)
    threads_s = cpu_s() - start
    start = cpu_s()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        found = list(pool.map(play, [given] * RUNS, range(1, RUNS + 1)))
    processes_s = cpu_s() - start
    assert found == table.columns["ttft_p50_ms"].tolist()
    sys.stdout.write(f"threads {threads_s:.1f} CPU-s, processes {processes_s:.1f} CPU-s\n")
    print("BENCH", json.dumps({"threads_cpu_s": threads_s, "processes_cpu_s": processes_s}))


if __name__ == "__main__":
    main()
