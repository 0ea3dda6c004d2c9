"""How well latencies are predicted: `make bench-predict TRACES=...`.

Plays workloads in the simulator, whose engines' timing is known, on fleets of unlike engines, and
compares what the router predicted at each decision with what came. Errors are mean absolute
percentage errors over all requests that were served but for the first 500;
`src/brain/sim/accuracy.rs` defines each figure. `hindsight` is the error of the learned models once
it is known what a request met: what is left without the luck of arrivals and lengths.

`chat` is made up here (Poisson arrivals, lognormal lengths); the others need the public traces in
`TRACES` and are left out where those are not there.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import random
import subprocess
import tempfile
from datetime import datetime
from pathlib import Path

BLOCK_TOKENS = 512
FLEETS = {
    "two GPUs": "qwen3-32b_h100_tp2:4,qwen3-32b_h200_tp1:4",
    "two models": "llama-3.1-8b_h100_tp1:4,qwen3-32b_h200_tp1:4",
}
FIGURES = [
    "ttft_mape",
    "tpot_mape",
    "tpot_p50_mape",
    "ttft_p90_coverage",
    "tpot_p90_coverage",
    "ttft_hindsight_error",
    "tpot_hindsight_error",
    "drift_alarms",
]


def write(path: Path, requests: list[tuple[float, int, int]]) -> Path:
    """Requests as (milliseconds, prompt tokens, output tokens), in Mooncake's format."""
    blocks = 0
    with path.open("w") as file:
        for at_ms, prompt, output in requests:
            count = math.ceil(prompt / BLOCK_TOKENS)
            row = {
                "timestamp": round(at_ms),
                "input_length": prompt,
                "output_length": output,
                "hash_ids": list(range(blocks, blocks + count)),
            }
            blocks += count
            print(json.dumps(row), file=file)
    return path


def chat(requests: int) -> list[tuple[float, int, int]]:
    """Poisson arrivals; prompts of 800 tokens and answers of 250, medians, lognormal."""
    rng = random.Random(1)
    at_ms, made = 0.0, []
    for _ in range(requests):
        at_ms += rng.expovariate(1.0) * 100
        prompt = min(16_000, max(8, round(rng.lognormvariate(math.log(800), 0.9))))
        output = min(2_000, max(2, round(rng.lognormvariate(math.log(250), 0.7))))
        made.append((at_ms, prompt, output))
    return made


def azure(path: Path, requests: int) -> list[tuple[float, int, int]]:
    made: list[tuple[float, int, int]] = []
    first = None
    with path.open() as file:
        for row in csv.DictReader(file):
            at = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            first = at if first is None else first
            lengths = int(row["ContextTokens"]), max(1, int(row["GeneratedTokens"]))
            made.append(((at - first) * 1e3, *lengths))
            if len(made) == requests:
                break
    return made


def simulate(binary: Path, arguments: list[str]) -> list[dict[str, float]]:
    command = [str(binary), "sim", "--json", "--format", "mooncake", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in output.splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("binary", type=Path)
    parser.add_argument("traces", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=6_000)
    parser.add_argument("--policy", default="default")
    parser.add_argument("--loads", default="0.4,0.6,0.8")
    args = parser.parse_args()
    results = {}
    print(f"{'workload':22} {'fleet':10} {'load':>4} {'profiles':8}", *FIGURES)
    with tempfile.TemporaryDirectory() as folder:
        workloads = {"chat": write(Path(folder) / "chat", chat(args.requests))}
        if (path := args.traces / "azure2023_conv.csv").exists():
            requests = azure(path, args.requests)
            workloads["azure conversation"] = write(Path(folder) / "azure", requests)
        if (path := args.traces / "mooncake_conversation_dev.jsonl").exists():
            workloads["mooncake conversation"] = path
        for workload, trace in workloads.items():
            for fleet, profiles in FLEETS.items():
                for load in args.loads.split(","):
                    for known in (True, False):
                        options = [] if known else ["--unknown-profiles"]
                        options += ["--trace", str(trace), "--profile", profiles, "--load", load]
                        options += ["--policy", args.policy, "--seeds", str(args.seeds)]
                        runs = simulate(args.binary, options)
                        # An endpoint that was hardly used has no error in hindsight.
                        means = {
                            figure: round(sum(run[figure] or 0 for run in runs) / len(runs), 4)
                            for figure in FIGURES
                        }
                        say = "known" if known else "unknown"
                        results[f"{workload}, {fleet}, load {load}, {say}"] = means
                        print(f"{workload:22} {fleet:10} {load:>4} {say:8}", end="")
                        print(*(f"{means[it]:{len(it) + 1}.4f}" for it in FIGURES), flush=True)
    print("BENCH", json.dumps({"bench": "predict", "results": results}))


if __name__ == "__main__":
    main()
