"""CPU time of a pick inside Ray Serve, of `llmd_sched.ray`'s own code: `make bench-ray-pick`.

Requests are as Ray hands them over; no Ray runs, and nothing of it is measured. What a router costs
is what it adds to the one event loop that routes a deployment's requests. The calls run back to
back, as they do where that matters. A loop that idles in between finds its caches cold, and pays
several times this for any code, as `pick_us_1k_cold` does, before each of which as much memory is
read as the last cache has.

Prints a line BENCH {json} last, medians over rounds, microseconds: `pick_us_1k` and
`pick_us_32k_text`, of messages with 1 KB and 32 KB of text as a mapping, `pick_us_1k_parsed`, of
the same as an object, and `pick_us_1k_tokens`, of 1,024 token ids; `request_us_1k`, of all that is
done for a request from its pick to its end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from llmd_sched.ray import Settings
from llmd_sched.ray._brain import DeploymentBrain
from ray.serve._private.common import RequestMetadata
from ray.serve.request_router import PendingRequest

ROUNDS = 41
PICKS = 512
GROUPS = 32
REPLICAS = 8
INFLIGHT = 64
LAST_CACHE_BYTES = 32 << 20
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
    """A request as Ray has it."""
    metadata = RequestMetadata(request_id="", internal_request_id=f"request-{number}")
    return PendingRequest([payload], {}, metadata, future=loop.create_future())


class Costs(NamedTuple):
    """Median over rounds of CPU time, microseconds: of a pick, and of all that is done for it."""

    pick_us: float
    request_us: float


def costs(payloads: list[Any]) -> Costs:
    """What our code costs a request."""
    loop = asyncio.new_event_loop()
    brain = DeploymentBrain("bench", Settings())
    fleet = [replica(number) for number in range(REPLICAS)]
    brain.sync(fleet)
    sent: list[tuple[Any, Any]] = []
    picks, requests = [], []
    for turn in range(ROUNDS):
        calls = [
            pending(loop, payloads[number % GROUPS], turn * PICKS + number)
            for number in range(PICKS)
        ]
        pick_ns = rest_ns = 0
        # In as many goes as keep so many in flight.
        for start in range(0, PICKS, INFLIGHT):
            batch = calls[start : start + INFLIGHT]
            before_ns = time.thread_time_ns()
            ranks = [brain.rank(fleet, call, list) for call in batch]
            pick_ns += time.thread_time_ns() - before_ns
            for call, ranked in zip(batch, ranks, strict=True):
                call.future.set_result(ranked[0][0])
            before_ns = time.thread_time_ns()
            loop.run_until_complete(asyncio.sleep(0))
            for call, ranked in zip(batch, ranks, strict=True):
                brain.taken(call, ranked[0][0].replica_id, None)
            for call, taken_by in sent:
                brain.completed(taken_by.replica_id, call.metadata.internal_request_id)
            rest_ns += time.thread_time_ns() - before_ns
            sent = [(call, ranked[0][0]) for call, ranked in zip(batch, ranks, strict=True)]
        picks.append(pick_ns / PICKS / 1e3)
        requests.append((pick_ns + rest_ns) / PICKS / 1e3)
    seen = brain.counters()
    assert (seen["fallbacks"], seen["picks"]) == (0, ROUNDS * PICKS), seen
    assert (seen["booked"], seen["waiting"]) == (len(sent), 0), seen
    loop.close()
    return Costs(statistics.median(picks), statistics.median(requests))


def cold_pick_us(payloads: list[Any]) -> float:
    """Median CPU time of a pick whose code and data are in no cache, microseconds."""
    loop = asyncio.new_event_loop()
    brain = DeploymentBrain("cold", Settings())
    fleet = [replica(number) for number in range(REPLICAS)]
    brain.sync(fleet)
    others = np.ones(LAST_CACHE_BYTES // 8)
    picks = []
    for number in range(PICKS):
        call = pending(loop, payloads[number % GROUPS], number)
        others.sum()
        # The clock's own code is not to be among it.
        time.thread_time_ns()
        before_ns = time.thread_time_ns()
        ((best,), _) = brain.rank(fleet, call, list)
        picks.append((time.thread_time_ns() - before_ns) / 1e3)
        call.future.set_result(best)
        loop.run_until_complete(asyncio.sleep(0))
        brain.completed(best.replica_id, call.metadata.internal_request_id)
    loop.close()
    return statistics.median(picks)


def figures(_asked: argparse.Namespace) -> dict[str, float]:
    """Measures, prints, and returns the figures."""
    of = {
        "1k": costs(text_of(1 << 10)),
        "1k_parsed": costs([SimpleNamespace(**it) for it in text_of(1 << 10)]),
        "1k_tokens": costs(tokens_of(1 << 10)),
        "32k_text": costs(text_of(32 << 10)),
    }
    measured = {f"pick_us_{name}": it.pick_us for name, it in of.items()}
    measured["request_us_1k"] = of["1k"].request_us
    measured["pick_us_1k_cold"] = cold_pick_us(text_of(1 << 10))
    for name, value in measured.items():
        print(f"{name:20} {value:8.2f}")
    return measured


def main() -> None:
    """Measures, and prints."""
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    measured = {name: round(value, 2) for name, value in figures(asked).items()}
    print("BENCH", json.dumps({"bench": "ray_pick", **measured}))


if __name__ == "__main__":
    main()
