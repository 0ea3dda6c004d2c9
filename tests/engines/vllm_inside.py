"""What runs inside vLLM's own environment, for test_vllm_inside.py: prints one line of JSON.

vllm_inside.py turns MODEL none|SCHEDULER   outputs, and in which steps they were begun
vllm_inside.py queue                        the waiting queue alone, against vLLM's own
vllm_inside.py ranks MODEL PORT             two data-parallel ranks behind one AsyncLLM
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from typing import Any

BLOCK = 32
# Milliseconds after arrival; all arrive within a moment.
DUE_MS = [60_000, 9_000, 30_000, 3_000, 90_000, 20_000]


def prompts(count: int, tokens: int) -> list[dict[str, list[int]]]:
    generator = random.Random(1)
    return [{"prompt_token_ids": generator.choices(range(3, 900), k=tokens)} for _ in range(count)]


def turns(model: str, scheduler: str) -> dict[str, Any]:
    # In this process, so that all requests wait before the first step.
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    from vllm import LLM, SamplingParams

    more: dict[str, Any] = {}
    if scheduler != "none":
        more["scheduler_cls"] = scheduler
        more["additional_config"] = {"llmd_sched": {"turns": {"order": "deadline"}}}
    llm = LLM(
        model=model,
        # Equal sums whatever else is in the batch.
        dtype="float32",
        max_num_seqs=2,
        max_model_len=224,
        block_size=BLOCK,
        # Two requests need more as they grow, so that one is preempted.
        num_gpu_blocks_override=10,
        enforce_eager=True,
        disable_log_stats=False,
        **more,
    )
    params = [
        SamplingParams(
            temperature=0, max_tokens=64, ignore_eos=True, extra_args={"deadline_ms": due_ms}
        )
        for due_ms in DUE_MS
    ]
    outputs = llm.generate(prompts(len(DUE_MS), 100), params, use_tqdm=False)
    began = [output.metrics.scheduled_ts for output in outputs]
    core = llm.llm_engine.engine_core.engine_core
    return {
        "scheduler": type(core.scheduler).__name__,
        "outputs": [list(output.outputs[0].token_ids) for output in outputs],
        # By the step that began them.
        "steps": [
            [index for index, at in enumerate(began) if at == step] for step in sorted(set(began))
        ],
        "preemptions": sum(output.metrics.num_preemptions for output in outputs),
        "waiting": len(core.scheduler.waiting),
    }


def queue() -> dict[str, Any]:
    """Random operations on ours and on vLLM's: first come first served is the same in both."""
    from types import SimpleNamespace

    from llmd_sched.vllm._queue import TurnRequestQueue
    from vllm.v1.core.sched.request_queue import FCFSRequestQueue, RequestQueue

    generator = random.Random(7)
    # Nobody ages in this test: all came just now.
    ours, theirs = TurnRequestQueue({"age_s": 86_400}), FCFSRequestQueue()
    made = 0
    for _ in range(20_000):
        what = generator.random()
        if what < 0.5 or not theirs:
            made += 1
            request = SimpleNamespace(
                request_id=f"r{made}",
                arrival_time=ours.now_s + made * 1e-3,
                priority=0,
                sampling_params=None,
                num_tokens=generator.randrange(1, 9_000),
                max_tokens=16,
            )
            # Hashable, as vLLM's are.
            request = _Hashable(**vars(request))
            ours.add_request(request)
            theirs.add_request(request)
        elif what < 0.9:
            assert ours.peek_request() is theirs.peek_request()
            # Some are passed over, and come back at the end of the step.
            count = generator.randrange(1, len(theirs) + 1)
            taken = [(ours.pop_request(), theirs.pop_request()) for _ in range(count)]
            assert all(one is other for one, other in taken)
            back = [one for one, _ in taken if generator.random() < 0.3]
            ours.prepend_requests(list(reversed(back)))
            theirs.prepend_requests(list(reversed(back)))
        else:
            some = [request for request in theirs if generator.random() < 0.1]
            ours.remove_requests(some)
            theirs.remove_requests(some)
        assert len(ours) == len(theirs)
        assert set(ours) == set(theirs)
    unbuilt = sorted(RequestQueue.__abstractmethods__ - set(vars(TurnRequestQueue)))
    return {"requests": made, "unbuilt": unbuilt, "left": len(ours._turns) == len(theirs)}


class _Hashable:
    def __init__(self, **fields: Any) -> None:
        vars(self).update(fields)


def ranks(model: str, port: int) -> dict[str, Any]:
    from vllm import AsyncEngineArgs
    from vllm.config import KVEventsConfig

    arguments = AsyncEngineArgs(
        model=model,
        dtype="bfloat16",
        max_num_seqs=8,
        max_model_len=1024,
        block_size=BLOCK,
        num_gpu_blocks_override=64,
        enforce_eager=True,
        data_parallel_size=2,
        enable_prefix_caching=True,
        kv_events_config=KVEventsConfig(
            enable_kv_cache_events=True,
            publisher="zmq",
            endpoint=f"tcp://*:{port}",
            replay_endpoint=f"tcp://*:{port + 2}",
        ),
        additional_config={"llmd_sched": {"signals": f"tcp://127.0.0.1:{port + 4}"}},
    )
    return asyncio.run(_converse(arguments, port))


async def _converse(arguments: Any, port: int) -> dict[str, Any]:
    from llmd_sched import Router
    from llmd_sched.vllm import RankRouter, SignalFeed
    from llmd_sched.vllm._stats import follow
    from vllm import SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

    engine = AsyncLLM.from_engine_args(arguments)
    told: dict[int, dict[str, Any]] = {0: {}, 1: {}}
    follow(engine.vllm_config, lambda rank, signals: told[rank].update(signals))
    ours = RankRouter(engine)
    elsewhere = Router()
    there = {rank: elsewhere.add_endpoint("there", dp_rank=rank) for rank in range(2)}
    feed = SignalFeed(elsewhere, f"tcp://127.0.0.1:{port + 4}", there)
    params = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    served: dict[int, list[int]] = {}
    wrong = []
    try:
        for endpoint in ours.router.endpoints():
            await asyncio.to_thread(ours.router.wait_kv_connected, endpoint, timeout_s=60)
        conversations = [it["prompt_token_ids"] for it in prompts(4, 10 * BLOCK)]
        for turn in range(4):
            for index, tokens in enumerate(conversations):
                # Of an earlier turn, all full blocks but perhaps the last are announced by now.
                known = (len(tokens) - BLOCK - 4) // BLOCK * BLOCK if turn else 0
                while max(ours.router.match(tokens).matched_tokens) < known:
                    await asyncio.sleep(0.01)
                held = ours.router.match(tokens).matched_tokens
                asked = [it.get("prefix_cache_queries_tokens", 0) for it in told.values()]
                async for output in ours.generate(
                    {"prompt_token_ids": list(tokens)}, params, f"{index}-{turn}"
                ):
                    last = output
                now = [it.get("prefix_cache_queries_tokens", 0) for it in told.values()]
                (rank,) = [it for it in range(2) if now[it] > asked[it]]
                served.setdefault(index, []).append(rank)
                if last.num_cached_tokens != held[rank]:
                    wrong.append([index, turn, last.num_cached_tokens, held.tolist()])
                tokens.extend([*last.outputs[0].token_ids, *range(40, 40 + BLOCK)])
        # What is published is what followers in the process were told.
        while [it.kv_usage for it in elsewhere.endpoints()] != [
            it["kv_usage"] for it in told.values()
        ]:
            await asyncio.sleep(0.01)
        return {
            "served": [served[index] for index in sorted(served)],
            "wrong": wrong,
            "hits": [it["prefix_cache_hits_tokens"] for it in told.values()],
            "inflight": [it.inflight_requests for it in ours.router.endpoints()],
            "kv_blocks": [it["kv_blocks"] for it in told.values()],
            "fallbacks": ours.counters()["fallbacks"],
            "feed": feed.counters(),
        }
    finally:
        feed.close()
        ours.close()
        engine.shutdown()


if __name__ == "__main__":
    command, *rest = sys.argv[1:]
    answer = {"turns": turns, "queue": queue, "ranks": ranks}[command](
        *(int(it) if it.isdigit() else it for it in rest)
    )
    sys.stdout.write(f"\nANSWER {json.dumps(answer)}\n")
