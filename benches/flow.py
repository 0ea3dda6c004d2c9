"""Flow control in the simulator: `make bench-flow TRACES=...`.

Fairness: a quiet tenant's p99 time to first token beside one that asks ten times as often (both
together for more than the fleet can do), over the same alone; the worst of the seeds and engines.

The longest hold against goodput: agent sessions that are too many for the KV caches, for holds of
different length and both settings of what becomes of who was held so long. Needs
`claudecode_sessions_dev.jsonl` in `TRACES`, and is left out without it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

ENGINES = [("llama-3.1-8b_h100_tp1", 4), ("llama-3.1-8b_h100_tp1", 8), ("qwen3-32b_h100_tp2", 8)]
HOLDS_S = [0, 30, 60, 120, 300, 600, 3600]
SESSIONS = [32, 40]
FIGURES = ["requests", "served", "slo_attainment", "goodput_requests_per_s"]
FIGURES += ["ttft_p99_ms", "longest_wait_ms"]


def simulate(binary: Path, arguments: list[str], flow: str = "") -> list[dict[str, Any]]:
    """Runs the simulator under the default policy; the figures of each seed, in order."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(flow)
        config.flush()
        command = [str(binary), "sim", "--json", "--policy", "default", "--config", config.name]
        output = subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)
    return sorted(map(json.loads, output.stdout.splitlines()), key=lambda run: run["seed"])


def fairness(binary: Path, seeds: int, flow: str = "") -> float:
    """Prints each case; returns the worst ratio."""
    worst = 0.0
    for profile, replicas in ENGINES:
        base = ["--format", "two-tenants", "--profile", profile, "--replicas", str(replicas)]
        base += ["--load", "0.15", "--horizon-s", "150", "--seeds", str(seeds)]
        alone = simulate(binary, [*base, "--flood", "0"])
        queued = simulate(binary, [*base, "--flood", "10"])
        fair = simulate(binary, [*base, "--flood", "10", "--max-hold-s", "600"], flow)
        for one, unheld, other in zip(alone, queued, fair, strict=True):
            p99 = [run["tenants"]["1"]["ttft_p99_ms"] for run in (one, unheld, other)]
            flooding = other["tenants"]["2"]
            worst = max(worst, p99[2] / p99[0])
            print(
                f"{replicas} x {profile:22} seed {one['seed']}: p99 TTFT alone {p99[0]:5.0f} ms,"
                f" in the engines' queues {p99[1]:6.0f} ms, in turns {p99[2]:5.0f} ms"
                f" ({p99[2] / p99[0]:.2f}); the other: {flooding['served']} of"
                f" {flooding['requests']} served, longest wait"
                f" {flooding['longest_wait_ms'] / 1e3:.0f} s",
                flush=True,
            )
    return worst


def longest_hold(binary: Path, trace: Path, seeds: int) -> None:
    """Prints a row for each number of sessions, setting and hold: means over the seeds."""
    print("sessions when-over  hold s  SLO %  goodput/s  served %  p99 TTFT s  longest s")
    base = ["--trace", str(trace), "--format", "agent-sessions", "--seeds", str(seeds)]
    base += ["--profile", "llama-70b_h100_tp4"]
    for sessions in SESSIONS:
        for over in ("reject", "dispatch"):
            for hold_s in HOLDS_S[0 if over == "reject" else 1 :]:
                arguments = ["--sessions", str(sessions), "--max-hold-s", str(hold_s)]
                flow = f'[flow]\nwhen_held_too_long = "{over}"\n'
                runs = simulate(binary, base + arguments, flow)
                mean = {name: sum(run[name] for run in runs) / len(runs) for name in FIGURES}
                served = 100 * mean["served"] / mean["requests"]
                print(
                    f"{sessions:8} {over:9} {hold_s:7} {100 * mean['slo_attainment']:6.1f}"
                    f" {mean['goodput_requests_per_s']:10.3f} {served:9.1f}"
                    f" {mean['ttft_p99_ms'] / 1e3:11.1f} {mean['longest_wait_ms'] / 1e3:10.0f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--flow", default="", help="settings in the place of the default, TOML")
    parser.add_argument("--only", choices=["fairness", "hold"])
    options = parser.parse_args()
    trace = options.traces / "claudecode_sessions_dev.jsonl"
    if options.only != "fairness" and trace.exists():
        longest_hold(options.binary, trace, options.seeds)
    if options.only != "hold":
        worst = fairness(options.binary, options.seeds, options.flow)
        print("BENCH " + json.dumps({"fair_p99_ratio": round(worst, 3)}))


if __name__ == "__main__":
    main()
