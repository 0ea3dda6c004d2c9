"""Policies against each other in the simulator: `make bench-sched TRACES=...`.

In-SLO requests of the default policy over those of the best rival, paired by seed, with a 95 %
interval; the best rival is the one with the most on average. Needs the public traces in `TRACES`:
`mooncake_conversation_dev.jsonl` and `claudecode_sessions_dev.jsonl`.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from sim_runs import Comparison, Runs, against_best, cpu_s, of, simulate

RIVALS = [
    "round-robin",
    "random",
    "least-request",
    "power-of-two",
    "session-hash",
    "sglang",
    "llm-d",
    "llm-d-precise",
    "sticky-until-saturated",
    "dynamo",
    "aibrix",
    "preble",
    "mooncake",
    "lmetric",
    "min-ttft",
    "dualmap",
    "ray-prefix",
]
# Rivals that were never near the best at sessions cost the most time there.
SESSION_RIVALS = ["session-hash", "sglang", "llm-d-precise", "lmetric", "min-ttft", "ray-prefix"]


# Those that are best behind a cap on sessions, and caps around what their caches hold.
CAPPED_RIVALS = ["sglang", "llm-d-precise", "lmetric"]
SESSION_CAPS = [16, 20, 24, 28]


def longest_wait_s(runs: dict[int, dict[str, float]]) -> float:
    """Of any turn, whichever the seed."""
    return max(of(runs, "longest_wait_ms")) / 1e3


def compare(name: str, ours: dict[int, dict[str, float]], rivals: Runs) -> Comparison:
    """Compares with the best rival, and prints it."""
    found = against_best(ours, rivals)
    slo, tails = found.means("slo_attainment"), found.means("ttft_p99_ms")
    longest_s = longest_wait_s(found.ours), longest_wait_s(found.theirs)
    print(
        f"{name:19} {found.ratio:6.3f} +- {found.margin:.3f} over {found.rival:22}"
        f" SLO {100 * slo[0]:5.2f} % against {100 * slo[1]:5.2f} %,"
        f" p99 TTFT {tails[0] / 1e3:.1f} against {tails[1] / 1e3:.1f} s,"
        f" longest wait {longest_s[0]:.0f} against {longest_s[1]:.0f} s",
        flush=True,
    )
    return found


def requests_per_s(binary: Path, trace: Path) -> float:
    """Requests a CPU-second on one core: many runs less one, which reads the trace as well."""
    arguments = ["--trace", str(trace), "--format", "mooncake", "--rate", "4.0"]
    arguments += ["--policy", "round-robin", "--metrics-ms", "0", "--seeds"]
    spent = []
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    for seeds in (1, 21):
        before = cpu_s()
        simulate(binary, [*arguments, str(seeds)])
        spent.append(cpu_s() - before)
    os.sched_setaffinity(0, cores)
    rows = sum(1 for _ in trace.open())
    return 20 * rows / (spent[1] - spent[0])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    binary, seeds = options.binary, ["--seeds", str(options.seeds)]
    conversation = options.traces / "mooncake_conversation_dev.jsonl"
    agents = options.traces / "claudecode_sessions_dev.jsonl"
    figures: dict[str, float] = {}

    policies = ["--policy", ",".join([*RIVALS, "default"])]
    base = ["--trace", str(conversation), *policies, *seeds]
    open_loops = {
        "conv_08": ["--format", "mooncake", "--load", "0.8"],
        "conv_10": ["--format", "mooncake", "--load", "1.0"],
        "conv_11": ["--format", "mooncake", "--load", "1.1"],
        "conv_host": ["--format", "mooncake", "--load", "0.8", "--host-tier", "4"],
        "conv_lag2s": ["--format", "mooncake", "--load", "0.8", "--lag-ms", "2000"],
        "toolmix": ["--format", "toolmix", "--load", "0.8", "--replicas", "16"],
    }
    for name, arguments in open_loops.items():
        runs = simulate(binary, base + arguments)
        ours = runs.pop("default")
        figures[name] = round(compare(name, ours, runs).ratio, 4)

    base = ["--trace", str(agents), "--format", "agent-sessions", *seeds]
    base += ["--profile", "llama-70b_h100_tp4"]
    for sessions in (24, 32, 40):
        arguments = [*base, "--sessions", str(sessions)]
        rivals = simulate(binary, [*arguments, "--policy", ",".join(SESSION_RIVALS)])
        hold = ["--max-hold-s", "3600", "--policy", "default"]
        ours = simulate(binary, arguments + hold)["default"]
        name = f"sessions_{sessions}"
        figures[name] = round(compare(name, ours, rivals).ratio, 4)
        # The rivals again, behind a proxy that lets in so many sessions and has the others wait.
        capped = {
            f"{policy} capped at {cap}": runs
            for cap in SESSION_CAPS
            if cap < sessions
            for policy, runs in simulate(
                binary,
                [*arguments, "--session-cap", str(cap), "--policy", ",".join(CAPPED_RIVALS)],
            ).items()
        }
        found = compare("  capped", ours, capped)
        figures[f"{name}_capped"] = round(found.ratio, 4)
        figures[f"wait_s_{sessions}_capped"] = round(longest_wait_s(found.theirs))
        at_once = simulate(binary, [*arguments, "--policy", "default"])["default"]
        name = f"sessions_{sessions}_at_once"
        figures[name] = round(compare(name, at_once, rivals).ratio, 4)
        figures[f"wait_s_{sessions}"] = round(longest_wait_s(ours))
    figures["sim_requests_per_s"] = round(requests_per_s(binary, conversation))
    print("BENCH " + json.dumps(figures))


if __name__ == "__main__":
    main()
