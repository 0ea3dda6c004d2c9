"""Requests through a handle of Ray Serve, under its routers and ours: part of `make bench-ray`.

One Ray on this machine; a deployment of no-op replicas for each router, all of them called from
here with the same requests, in turns. What a router costs shows in how many requests a second come
through and in the CPU time of this process, where the routers run.

Ratios are medians over rounds of one round's ratio. `handle_vs_trivial` is of requests a second,
ours over those of a router that hashes the prompt; `handle_vs_prefix_affinity` over Ray's own
`PrefixCacheAffinityRouter`; `cpu_vs_...` are the same of this process's CPU time a request, where
less is better. Of each router: `affinity`, the share of a group's requests that its most used
replica got, over all rounds; `spread`, requests of the busiest replica over the mean;
`pick_us_..._in_ray`, what our router's own counter says of its picks.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

from llmd_sched.ray import counters
from llmd_sched.ray._brain import CLOCKED_PICKS

REPLICAS = 4
GROUPS = 8
INFLIGHT = 64
SHARED = 0.75
OBJECT_STORE_BYTES = 256 << 20

ROUTERS = {
    "ours": "llmd_sched.ray:LlmdRouter",
    "trivial": "ray_trivial_router:TrivialRouter",
    # Its public name needs a vLLM to be imported.
    "prefix_affinity": "ray.llm._internal.serve.routing_policies.prefix_aware."
    "prefix_aware_router:PrefixCacheAffinityRouter",
}


class Turn(NamedTuple):
    """What one router made of one round."""

    requests_per_s: float
    cpu_us: float
    places: list[tuple[int, str]]


@contextmanager
def serving() -> Iterator[Any]:
    """Ray Serve on a small Ray of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_HAPROXY_METRICS_PORT", "0")
    import ray
    from ray import serve

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
    )
    serve.start(proxy_location="Disabled")
    try:
        yield serve
    finally:
        serve.shutdown()
        ray.shutdown()


def deploy(serve: Any, name: str, router: str) -> Any:
    """The handle of no-op replicas behind a router."""
    from ray.serve.config import RequestRouterConfig

    @serve.deployment(
        name=name,
        num_replicas=REPLICAS,
        max_ongoing_requests=2 * INFLIGHT,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(request_router_class=router),
    )
    class Replica:
        def __init__(self) -> None:
            self.name = serve.get_replica_context().replica_id.unique_id

        async def __call__(self, _request: Any) -> str:
            return self.name

    return serve.run(Replica.bind(), name=name, route_prefix=None)


def requests_of(size_bytes: int, count: int, turn: int) -> list[tuple[int, Any]]:
    """Requests as `ray.serve.llm` parses them, each with its group: a group shares a beginning."""
    filler = "the quick brown fox jumps over. " * (size_bytes // 32 + 1)
    made = []
    for number in range(count):
        group = number % GROUPS
        shared = f"group {group} {filler}"[: int(size_bytes * SHARED)]
        own = f"turn {turn} number {number} {filler}"[: size_bytes - len(shared)]
        content = [{"role": "user", "content": shared + own}]
        made.append((group, SimpleNamespace(messages=content, max_tokens=256)))
    return made


async def send(handle: Any, requests: list[tuple[int, Any]]) -> list[tuple[int, str]]:
    """All of them, so many at a time; of each its group and who answered."""
    places: list[tuple[int, str]] = []
    left = iter(requests)

    async def one_after_another() -> None:
        for group, request in left:
            places.append((group, await handle.remote(request)))

    await asyncio.gather(*(one_after_another() for _ in range(INFLIGHT)))
    return places


def take_turn(handle: Any, requests: list[tuple[int, Any]]) -> Turn:
    """One router's share of a round."""
    began_s, cpu_began_s = time.perf_counter(), time.process_time()
    places = asyncio.run(send(handle, requests))
    cpu_s, wall_s = time.process_time() - cpu_began_s, time.perf_counter() - began_s
    return Turn(len(requests) / wall_s, cpu_s / len(requests) * 1e6, places)


def race(
    handles: dict[str, Any], size_bytes: int, count: int, rounds: int
) -> dict[str, list[Turn]]:
    """Turns of each router, who goes first changing; a round before them does not count."""
    turns: dict[str, list[Turn]] = {name: [] for name in handles}
    names = list(handles)
    for number in range(rounds + 1):
        requests = requests_of(size_bytes, count, number)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            turn = take_turn(handles[name], requests)
            if number > 0:
                turns[name].append(turn)
    return turns


def ratio(turns: dict[str, list[Turn]], figure: str, over: str) -> float:
    """Ours over another's, the median of the rounds'."""
    ours, theirs = ([getattr(it, figure) for it in turns[name]] for name in ("ours", over))
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def affinity(turns: list[Turn]) -> float:
    """The share of its group's requests that the most used replica got, over all groups."""
    groups: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for group, replica in (place for turn in turns for place in turn.places):
        groups[group][replica] += 1
    most = sum(max(replicas.values()) for replicas in groups.values())
    return most / sum(replicas.total() for replicas in groups.values())


def spread(turns: list[Turn]) -> float:
    """Requests of the busiest replica over the mean."""
    replicas = Counter(replica for turn in turns for _, replica in turn.places)
    return max(replicas.values()) / replicas.total() * REPLICAS


def timed_picks() -> tuple[int, float]:
    """How many picks our router timed, and the CPU time of all those, microseconds."""
    (said,) = [it for name, it in counters().items() if "ours" in name]
    timed = said["picks"] // CLOCKED_PICKS
    return timed, said["pick_cpu_us"] * timed


def figures(asked: argparse.Namespace) -> dict[str, float]:
    """Measures, prints what came of it, and returns the figures of the bench."""
    measured: dict[str, float] = {}
    with serving() as serve:
        handles = {name: deploy(serve, name, router) for name, router in ROUTERS.items()}
        for size, against, size_bytes, count in (
            ("1k", "trivial", 1 << 10, asked.requests),
            ("32k", "prefix_affinity", 32 << 10, asked.requests // 4),
        ):
            rivals = {name: handles[name] for name in ("ours", against)}
            picks_before, us_before = timed_picks() if size != "1k" else (0, 0.0)
            turns = race(rivals, size_bytes, count, asked.rounds)
            picks, us = timed_picks()
            measured[f"pick_us_{size}_in_ray"] = (us - us_before) / (picks - picks_before)
            measured[f"handle_vs_{against}"] = ratio(turns, "requests_per_s", against)
            measured[f"cpu_vs_{against}"] = ratio(turns, "cpu_us", against)
            for name, of in turns.items():
                show(f"{name} {size}", of, measured)
        (said,) = [it for name, it in counters().items() if "ours" in name]
        assert said["fallbacks"] == 0, said
    return measured


def show(name: str, turns: list[Turn], measured: dict[str, float]) -> None:
    """Prints a router's row, and notes its figures."""
    row = {
        "requests_per_s": statistics.median(it.requests_per_s for it in turns),
        "driver_cpu_us": statistics.median(it.cpu_us for it in turns),
        "affinity": affinity(turns),
        "spread": spread(turns),
    }
    print(f"{name:20}", *(f"{figure} {value:.2f}" for figure, value in row.items()), sep="  ")
    measured.update({f"{figure}_{name.replace(' ', '_')}": it for figure, it in row.items()})
