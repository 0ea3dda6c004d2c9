"""vLLM's data-parallel ranks in one process, chosen by what each has cached.

    pip install llmd-sched vllm
    python examples/vllm_ranks.py --model Qwen/Qwen3-0.6B

vLLM sends a request to the rank with the fewest requests; `RankRouter` asks the brain. Plays
conversations, each turn of which repeats all that came before, and says how much of them the ranks
found in their caches.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

from llmd_sched.vllm import RankRouter
from vllm import AsyncEngineArgs, SamplingParams
from vllm.config import KVEventsConfig
from vllm.v1.engine.async_llm import AsyncLLM

CONVERSATIONS = 4
TURNS = 4
TURN_TOKENS = 96


async def converse(ranks: RankRouter) -> dict[str, Any]:
    """One request after the other; each conversation's prompt grows by a turn."""
    params = SamplingParams(temperature=0, max_tokens=4)
    asked = found = 0
    for turn in range(1, TURNS + 1):
        for one in range(CONVERSATIONS):
            tokens = [3 + (97 * one + 31 * at) % 800 for at in range(TURN_TOKENS * turn)]
            prompt = {"prompt_token_ids": tokens}
            async for output in ranks.generate(prompt, params, f"{one}-{turn}"):
                last = output
            asked += len(tokens)
            found += last.num_cached_tokens or 0
    return {"asked": asked, "found": found, **ranks.counters()}


async def play(given: argparse.Namespace) -> dict[str, Any]:
    """Starts the engine, converses, and ends it."""
    events = KVEventsConfig(
        enable_kv_cache_events=True,
        publisher="zmq",
        # Each rank publishes at its own, so many further on.
        endpoint=f"tcp://*:{given.port}",
        replay_endpoint=f"tcp://*:{given.port + 2}",
    )
    arguments = AsyncEngineArgs(
        model=given.model, data_parallel_size=2, kv_events_config=events, **given.engine
    )
    engine = AsyncLLM.from_engine_args(arguments)
    ranks = RankRouter(engine)
    try:
        for endpoint in ranks.router.endpoints():
            await asyncio.to_thread(ranks.router.wait_kv_connected, endpoint, timeout_s=60)
        return await converse(ranks)
    finally:
        ranks.close()
        engine.shutdown()


def main() -> None:
    """Plays, and prints."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--model", required=True, help="a model's name or folder")
    options.add_argument("--engine", type=json.loads, default={}, help="engine arguments, as JSON")
    options.add_argument("--port", type=int, default=5557, help="the first of four for KV events")
    result = asyncio.run(play(options.parse_args()))
    expected = result["router"]["requests"]["matched_tokens"]
    print(f"prompt tokens asked      {result['asked']:>8}")
    print(f"the router expected      {expected:>8} of them in the chosen ranks' caches")
    print(f"the ranks found          {result['found']:>8}")
    print(f"vLLM chose               {result['fallbacks']:>8} times")


if __name__ == "__main__":
    main()
