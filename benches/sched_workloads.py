"""The default policy beyond the workloads it was made on: `make bench-sched-workloads TRACES=...`.

Other traces, engines, fleet sizes and mixed fleets, generated traffic, and engines that die. For
each, in-SLO requests of the default policy over those of the best rival of the same run, paired by
seed, with a 95 % interval; the rivals are those that were ever near the best. Beside it the same
fleet behind a cache that all engines share, as a bound. Needs the public traces in `TRACES`:
`mooncake_conversation_dev.jsonl`, `lmcache_agent_sessions.jsonl`, `azure2023_code.csv` and
`azure2023_conv.csv`. Azure's traces have no prefixes: those are made up, as `PrefixModel` states.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from sim_runs import Comparison, against_best, cpu_s, mean, of, simulate

RIVALS = [
    "sglang",
    "llm-d-precise",
    "aibrix",
    "preble",
    "mooncake",
    "lmetric",
    "min-ttft",
    "dualmap",
    "ray-prefix",
]
# A fleet of hundreds costs the most time.
LARGE_FLEET_RIVALS = ["preble", "lmetric", "min-ttft"]
LARGE_FLEETS = {"chats_256"}
# Where the default policy may hold requests: no rival knows how to.
HELD = {"agents", "lmcache_agents"}


def workloads(traces: Path) -> dict[str, list[str]]:
    """Arguments of `llmd-sched sim`, by name."""
    conversation = ["--trace", str(traces / "mooncake_conversation_dev.jsonl")]
    conversation += ["--format", "mooncake"]
    agents = ["--trace", str(traces / "lmcache_agent_sessions.jsonl"), "--format"]
    agents += ["prompt-sessions", "--horizon-s", "900", "--think-cap-s", "2"]

    def azure(which: str) -> list[str]:
        return ["--trace", str(traces / f"azure2023_{which}.csv"), "--format", "azure"]

    small, large = "llama-3.1-8b_h100_tp1", "llama-70b_h100_tp4"
    many = ["--format", "chats", "--requests", "20000", "--replicas", "256"]
    fast, slow = "qwen3-32b_h100_tp2", "qwen3-32b_h200_tp1"
    made_up = ["--format", "agents", "--profile", small, "--replicas", "4"]
    made_up += ["--sessions", "64", "--horizon-s", "900"]
    return {
        "azure_code": [*azure("code"), "--replicas", "4", "--load", "0.25"],
        "azure_conv": [*azure("conv"), "--replicas", "4", "--load", "0.6"],
        "azure_conv_full": [*azure("conv"), "--replicas", "4", "--load", "0.9"],
        "lmcache_agents": [*agents, "--profile", large, "--replicas", "2", "--sessions", "69"],
        "conv_8b": [*conversation, "--profile", small, "--load", "0.8"],
        "conv_70b": [*conversation, "--profile", large, "--load", "0.8"],
        "conv_48": [*conversation, "--replicas", "48", "--load", "0.8"],
        "conv_mixed": [*conversation, "--profile", f"{fast}:4,{slow}:4", "--load", "0.8"],
        "conv_failures": [*conversation, "--load", "0.7", "--fail", "1@400-700,5@900"],
        "conv_jitter": [*conversation, "--load", "0.8", "--step-jitter", "0.2"],
        "chats": ["--format", "chats", "--load", "1.6"],
        "chats_bursty": ["--format", "chats", "--variation", "4", "--load", "1.4"],
        "chats_256": [*many, "--load", "1.6"],
        "agents": made_up,
        "agents_at_once": made_up,
    }


def show(name: str, found: Comparison, bound: float) -> None:
    slo, tails = found.means("slo_attainment"), found.means("ttft_p99_ms")
    print(
        f"{name:15} {found.ratio:6.3f} +- {found.margin:.3f} over {found.rival:14}"
        f" SLO {100 * slo[0]:6.2f} against {100 * slo[1]:6.2f}, bound {100 * bound:6.2f} %"
        f" | p99 TTFT {tails[0] / 1e3:5.1f} against {tails[1] / 1e3:5.1f} s",
        flush=True,
    )


def thousand(binary: Path) -> dict[str, float]:
    """A fleet of a thousand."""
    arguments = ["--format", "chats", "--requests", "50000", "--replicas", "1000"]
    arguments += ["--profile", "llama-3.1-8b_h100_tp1", "--rate", "2000", "--metrics-ms", "1000"]
    before = cpu_s()
    (run,) = simulate(binary, [*arguments, "--policy", "default"])["default"].values()
    print(
        f"1,000 endpoints: {run['served']:.0f} of {run['requests']:.0f} served,"
        f" SLO {100 * run['slo_attainment']:.2f} %, {cpu_s() - before:.0f} CPU-seconds"
    )
    return {"thousand_served": run["served"] / run["requests"]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="names of workloads")
    parser.add_argument("--rivals", nargs="*", default=RIVALS, help="policies to compare with")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    for name, arguments in workloads(options.traces).items():
        if options.only and name not in options.only:
            continue
        asked = [*arguments, "--seeds", str(options.seeds)]
        rivals = LARGE_FLEET_RIVALS if name in LARGE_FLEETS else options.rivals
        runs = simulate(options.binary, [*asked, "--policy", ",".join(rivals)])
        asked += ["--policy", "default"]
        if name in HELD:
            asked += ["--max-hold-s", "3600"]
        ours = simulate(options.binary, asked)["default"]
        bound = simulate(options.binary, [*asked, "--shared-cache"])["default"]
        found = against_best(ours, runs)
        show(name, found, mean(of(bound, "slo_attainment")))
        figures[name] = round(found.ratio, 4)
        tails, long = found.means("ttft_p99_ms"), found.means("slo_attainment_long_prompts")
        figures[f"{name}_p99_ttft"] = round(tails[0] / max(tails[1], 1e-9), 3)
        figures[f"{name}_long_points"] = round(100 * (long[0] - long[1]), 2)
    if not options.only:
        figures |= thousand(options.binary)
    print("BENCH " + json.dumps(figures))


if __name__ == "__main__":
    main()
