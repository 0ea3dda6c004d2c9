"""Fleets that follow a day: `make bench-autoscale TRACES=...`.

A day of generated chats and one of the conversation trace, compressed to a few hours, with a burst
in the afternoon. For each: fleets of a fixed size, Ray Serve's rule on open requests at several
targets, and the rule on objectives. SLO attainment, replica-hours, and orders, means over the
seeds. Prints a line BENCH {json} last.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sim_runs import mean, of, simulate

# The public default, and what a person finds by trying.
TARGETS = [2, 16, 48]
FIXED = [5, 6, 7]


def days(traces: Path) -> dict[str, tuple[int, list[str]]]:
    """Replicas at most and arguments of `llmd-sched sim`, by name."""
    shape = ["--day", "0.15", "--burst", "1.5"]
    chats = ["--format", "chats", "--requests", "80000", "--rate", "16"]
    found = {"chats": (10, [*chats, *shape])}
    trace = traces / "mooncake_conversation_dev.jsonl"
    if trace.exists():
        conversation = ["--trace", str(trace), "--format", "mooncake", "--rate", "1.5"]
        found["conversation"] = (10, [*conversation, *shape])
    return found


def fleets(most: int) -> dict[str, list[str]]:
    """Arguments by what sizes the fleet."""
    fixed = {f"fixed at {size}": ["--replicas", str(size)] for size in FIXED}
    scaled = ["--replicas", str(most), "--autoscale"]
    ongoing = {f"{it} open requests": [*scaled, f"ongoing:{it}"] for it in TARGETS}
    hasty = {
        f"{it} open requests, down after 300 s": [*ongoing[f"{it} open requests"], *DOWN]
        for it in TARGETS[1:]
    }
    return {**fixed, **ongoing, **hasty, "objectives": [*scaled, "slo"]}


DOWN = ["--down-after-s", "300"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", help="a part of the fleets' names")
    parser.add_argument("--day", help="one of the days")
    options = parser.parse_args()
    found: dict[str, dict[str, dict[str, float]]] = {}
    for day, (most, workload) in days(options.traces).items():
        if options.day not in (None, day):
            continue
        print(f"\n{day}\n| fleet | SLO % | replica-hours | orders | p99 TTFT s |")
        print("|---|---|---|---|---|")
        for fleet, sized in fleets(most).items():
            if options.only is not None and options.only not in fleet:
                continue
            arguments = [*workload, *sized, "--policy", "default", "--seeds", str(options.seeds)]
            runs = simulate(options.binary, arguments)["default"]
            figures = {
                name: mean(of(runs, name))
                for name in ("slo_attainment", "replica_hours", "scale_orders", "ttft_p99_ms")
            }
            found.setdefault(day, {})[fleet] = figures
            share, hours, orders, p99_ms = figures.values()
            print(
                f"| {fleet} | {share:.1%} | {hours:.1f} | {orders:.0f} | {p99_ms / 1e3:.1f} |",
                flush=True,
            )
    print("BENCH", json.dumps(found))


if __name__ == "__main__":
    main()
