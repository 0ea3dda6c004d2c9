"""vLLM's waiting queue in the order of deadlines.

    pip install llmd-sched vllm
    python examples/vllm_turns.py --model Qwen/Qwen3-0.6B
    python examples/vllm_turns.py --model Qwen/Qwen3-0.6B --plain   # the same, with vLLM's own

All requests come at once, two run at a time, and each says in how many milliseconds it is due.
Prints in which order they began. Over HTTP: docs/vllm.md.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

# Milliseconds after the requests came.
DUE_MS = [60_000, 9_000, 30_000, 3_000, 90_000, 20_000]


def play(given: argparse.Namespace) -> list[int]:
    """Has the requests answered; returns them in the order in which they began."""
    # The engine in this process, so that all requests wait before the first step.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    turns: dict[str, Any] = {}
    if not given.plain:
        turns["scheduler_cls"] = f"llmd_sched.vllm.{given.scheduler}"
        turns["additional_config"] = {"llmd_sched": {"turns": {"order": "deadline"}}}
    llm = LLM(
        model=given.model, max_num_seqs=2, disable_log_stats=False, **{**turns, **given.engine}
    )
    prompts = [
        {"prompt_token_ids": [3 + (89 * one + at) % 700 for at in range(64)]}
        for one in range(len(DUE_MS))
    ]
    params = [
        SamplingParams(max_tokens=8, ignore_eos=True, extra_args={"deadline_ms": due_ms})
        for due_ms in DUE_MS
    ]
    answers = llm.generate(prompts, params, use_tqdm=False)
    began = {number: answer.metrics.scheduled_ts for number, answer in enumerate(answers)}
    # Those of one step began together.
    return sorted(began, key=lambda number: (began[number], DUE_MS[number]))


def main() -> None:
    """Plays, and prints."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--model", required=True, help="a model's name or folder")
    options.add_argument("--plain", action="store_true", help="vLLM's own queue")
    options.add_argument(
        "--scheduler",
        default="TurnScheduler",
        help="SyncTurnScheduler where async scheduling is off, as on CPUs",
    )
    options.add_argument("--engine", type=json.loads, default={}, help="engine arguments, as JSON")
    order = play(options.parse_args())
    print("began in this order, due after ms:", *(DUE_MS[number] for number in order))


if __name__ == "__main__":
    main()
