"""CPU time of a pick inside Ray Serve, of `llmd_sched.ray`'s own code: `make bench-ray-pick`.

Requests are as Ray hands them over; Ray itself is not needed and not measured. What a router costs
is what it adds to the one event loop that routes a deployment's requests. The calls run back to
back, as they do where that matters: a loop that idles in between finds its caches cold and pays
several times this for any code.

Prints a line BENCH {json} last, medians over rounds: `pick_us_1k` and `pick_us_32k_text`, of
messages with 1 KB and 32 KB of text, and `pick_us_1k_tokens`, of 1,024 token ids.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
from llmd_sched.ray import Settings
from llmd_sched.ray._brain import DeploymentBrain

ROUNDS = 41
PICKS = 500
GROUPS = 32
SENTENCE = "the quick brown fox jumps over. "


def replica(number: int) -> Any:
    """A `RunningReplica`, as far as it is asked."""
    name = f"default#app#deployment#{number:08d}"
    return SimpleNamespace(replica_id=SimpleNamespace(to_full_id_str=lambda: name))


def text_of(size_bytes: int) -> list[Any]:
    """Calls whose prompts share a prefix in groups."""
    body = SENTENCE * (size_bytes // len(SENTENCE))
    talks = [[{"role": "user", "content": f"{group} {body}"}] for group in range(GROUPS)]
    return [{"messages": talk, "max_tokens": 256} for talk in talks]


def tokens_of(count: int) -> list[Any]:
    """The same as token ids."""
    prompts = [np.arange(count, dtype=np.uint32) + group for group in range(GROUPS)]
    return [{"prompt": prompt, "max_tokens": 256} for prompt in prompts]


def pending(loop: asyncio.AbstractEventLoop, payload: Any, number: int) -> Any:
    """A `PendingRequest`, as far as it is asked."""
    metadata = SimpleNamespace(
        session_id="", multiplexed_model_id="", internal_request_id=f"request-{number}"
    )
    return SimpleNamespace(
        args=(payload,),
        kwargs={},
        metadata=metadata,
        routing_context=SimpleNamespace(should_backoff=False),
        future=loop.create_future(),
    )


def pick_us(payloads: list[Any], replicas: int, inflight: int) -> float:
    """Median over rounds of the CPU time of a pick, microseconds."""
    loop = asyncio.new_event_loop()
    brain = DeploymentBrain("bench", Settings())
    fleet = [replica(number) for number in range(replicas)]
    brain.sync(fleet)
    sent: list[tuple[Any, str]] = []
    rounds = []
    for turn in range(ROUNDS):
        calls = [
            pending(loop, payloads[number % GROUPS], turn * PICKS + number)
            for number in range(PICKS)
        ]
        # In as many goes as keep so many in flight.
        spent_ns = 0
        for start in range(0, PICKS, inflight):
            batch = calls[start : start + inflight]
            before_ns = time.thread_time_ns()
            ranks = [brain.rank(fleet, call, list) for call in batch]
            spent_ns += time.thread_time_ns() - before_ns
            for call, ranked in zip(batch, ranks, strict=True):
                call.future.set_result(ranked[0][0])
            loop.run_until_complete(asyncio.sleep(0))
            sent += [
                (ranked[0][0].replica_id, call.metadata.internal_request_id)
                for call, ranked in zip(batch, ranks, strict=True)
            ]
            while len(sent) > inflight:
                brain.completed(*sent.pop(0))
        rounds.append(spent_ns / PICKS / 1e3)
    seen = brain.counters()
    assert (seen["fallbacks"], seen["picks"]) == (0, ROUNDS * PICKS), seen
    assert (seen["booked"], seen["waiting"]) == (len(sent), 0), seen
    loop.close()
    return statistics.median(rounds)


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=8)
    parser.add_argument("--inflight", type=int, default=64)
    asked = parser.parse_args()
    figures = {
        name: round(pick_us(payloads, asked.replicas, asked.inflight), 2)
        for name, payloads in (
            ("pick_us_1k", text_of(1 << 10)),
            ("pick_us_1k_tokens", tokens_of(1 << 10)),
            ("pick_us_32k_text", text_of(32 << 10)),
        )
    }
    for name, value in figures.items():
        print(f"{name:20} {value:8.2f}")
    print("BENCH", json.dumps({"bench": "ray_pick", **vars(asked), **figures}))


if __name__ == "__main__":
    main()
