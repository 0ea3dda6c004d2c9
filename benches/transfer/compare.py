"""Ours, memcpy, raw TCP and NIXL in turns: ``compare.py BENCH NIXL_PYTHON [TURNS [SHAPE...]]``.

Each turn runs both programs on one shape, so that what else the machine does falls on all. Ratios
are of medians within a turn; the figure is the median of the turns. Prints ``BENCH {json}`` last.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SHAPES = {
    "512x64K": (1, 512, 65536),
    "32x256x16K": (32, 256, 16384),
    "32x1024x8K": (32, 1024, 8192),
    "32x512x4K": (32, 512, 4096),
}
# What NIXL runs over: the best that it has within a host, and TCP.
NIXL = {"nixl_shm": "posix,cma", "nixl_tcp": "tcp"}
ROUNDS_A_TURN = 5


def rows(command: list[str], **environment: str) -> list[dict[str, float]]:
    # NIXL sometimes dies on its way out (or in): what counts is whether it measured.
    for _ in range(3):
        done = subprocess.run(
            command,
            env=os.environ | environment,
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=300,
        )
        found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if len(found) == ROUNDS_A_TURN:
            return found
    sys.exit(f"{command} measured {len(found)} of {ROUNDS_A_TURN} rounds three times")


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}


def turn(bench: str, nixl: str, shape: tuple[int, ...]) -> dict[str, float]:
    arguments = [*map(str, shape), str(ROUNDS_A_TURN)]
    found = medians(rows([bench, *arguments]))
    script = str(Path(__file__).parent / "nixl_read.py")
    for name, transports in NIXL.items():
        theirs = rows([nixl, script, *arguments], UCX_TLS=transports)
        found[name] = medians(theirs)["nixl"]
    return found


def main() -> None:
    bench, nixl = sys.argv[1:3]
    turns = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    figures: dict[str, float] = {}
    for name in sys.argv[4:] or SHAPES:
        shape = SHAPES[name]
        found = [turn(bench, nixl, shape) for _ in range(turns)]
        layers, blocks, block_bytes = shape
        descriptors, total = layers * blocks, layers * blocks * block_bytes

        def ratio(slower: str, faster: str, found: list[dict[str, float]] = found) -> float:
            return round(statistics.median(row[slower] / row[faster] for row in found), 2)

        print(f"\n{name}: {descriptors} descriptors, {total / 1e6:.0f} MB")
        for way in (way for way in found[0] if not way.endswith("_cpu")):
            took = statistics.median(row[way] for row in found)
            print(
                f"  {way:18} {total / took / 1e9:6.2f} GB/s {took / descriptors * 1e6:7.2f} us each"
            )
        ratios = {
            # One thread each, which does nothing else: by its CPU time.
            "shm_vs_memcpy": ratio("memcpy_cpu", "shm_read_cpu"),
            "shm_threads_vs_memcpy": ratio("memcpy", "shm_read_threads"),
            "shm_vs_nixl": ratio("nixl_shm", "shm_read"),
            "tcp_vs_raw": ratio("raw_tcp", "tcp_read_2"),
            "tcp_vs_nixl": ratio("nixl_tcp", "tcp_read_2"),
        }
        print(" ", ratios)
        figures |= {f"{key}_{name}": value for key, value in ratios.items()}
    print("BENCH", json.dumps({"bench": "transfer", "turns": turns, **figures}))


if __name__ == "__main__":
    main()
