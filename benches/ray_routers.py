"""One, two and four routers of one deployment on a real Ray Serve: `make bench-ray-routers`.

Conversations whose turns come to whichever router Ray sends them to, in front of embedded engines
whose KV events all routers follow (with `--kv-events off` each estimates from its own decisions),
with routers that tell each other their loads and without. What is compared is what the engines
count: prompt tokens found in their caches, and the mean time to a first token. Every router is a
process, and so is every engine: times on a small machine say little.

Prints a line BENCH {json} last: by routers and exchange, `hits` (share of prompt tokens),
`ttft_ms`, `messages_per_s` of each router, and `cpu_ms_per_s` of CPU of each router's process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import time
from typing import Any

ENGINES = 4
BLOCK_SIZE = 16
CONVERSATIONS = 96
TURNS = 5
CLIENTS = 48
TURN_TOKENS = 1024
SYSTEM_TOKENS = 1024
KV_BLOCKS = 8192
SPEED = 0.5


def deploy(serve: Any, routers: int, exchange_ms: float, kv_events: str) -> Any:
    from llmd_sched.ray import EngineSignals
    from ray.serve.config import RequestRouterConfig

    class Engine(EngineSignals):
        def __init__(self) -> None:
            import subprocess
            import sys

            command = [sys.executable, "-m", "llmd_sched", "engine", "--port", "0", "--model", "m"]
            command += ["--kv-blocks", str(KV_BLOCKS), "--block-size", str(BLOCK_SIZE)]
            command += ["--speed", str(SPEED)]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert self.process.stdout is not None
            self.url = json.loads(self.process.stdout.readline())["url"]
            self.tell_engine(self.url, labels={"engine-profile": "qwen3-32b_h100_tp2"})

        def __del__(self) -> None:
            self.process.kill()

        def get(self, path: str, body: Any = None) -> bytes:
            import urllib.request

            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(
                self.url + path, data, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=120) as answer:
                read: bytes = answer.read()
                return read

        async def __call__(self, request: dict[str, Any]) -> None:
            body = {"model": "m", **request}
            await asyncio.to_thread(self.get, "/v1/completions", body)

        async def page(self, _request: Any) -> tuple[str, str]:
            return self.url, (await asyncio.to_thread(self.get, "/metrics")).decode()

    class Caller:
        def __init__(self, engine: Any) -> None:
            self.engine = engine

        async def call(self, request: dict[str, Any]) -> None:
            await self.engine.remote(request)

        async def page(self) -> tuple[str, str]:
            found: tuple[str, str] = await self.engine.page.remote(None)
            return found

        async def state(self) -> tuple[int, float, dict[str, Any]]:
            """Who this is, the CPU seconds that it used, and its router's counters."""
            import llmd_sched.ray

            counters = next(iter(llmd_sched.ray.counters().values()), {})
            return os.getpid(), time.process_time(), counters

    options = {"num_cpus": 0}
    engine = serve.deployment(
        Engine,
        num_replicas=ENGINES,
        max_ongoing_requests=256,
        ray_actor_options=options,
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(
            request_router_class="llmd_sched.ray:LlmdRouter",
            request_router_kwargs={
                "block_size": BLOCK_SIZE,
                "exchange_ms": exchange_ms,
                "kv_events": kv_events,
                "slo": {"ttft_ms": 1_000, "tpot_ms": 60},
            },
        ),
    ).bind()
    caller = serve.deployment(
        Caller,
        num_replicas=routers,
        max_ongoing_requests=256,
        ray_actor_options=options,
        graceful_shutdown_timeout_s=0,
    ).bind(engine)
    return serve.run(caller, name="bench", route_prefix=None)


async def states(handle: Any, routers: int) -> dict[int, tuple[float, dict[str, Any]]]:
    """Of every router's process."""
    found: dict[int, tuple[float, dict[str, Any]]] = {}
    while len(found) < routers:
        pid, cpu_s, counters = await handle.state.remote()
        found[pid] = (cpu_s, counters)
    return found


async def pages(handle: Any) -> list[str]:
    found: dict[str, str] = {}
    while len(found) < ENGINES:
        url, page = await handle.page.remote()
        found[url] = page
    return list(found.values())


def total(pages: list[str], series: str) -> float:
    lines = [
        it
        for page in pages
        for it in page.splitlines()
        if it.startswith((series + " ", series + "{"))
    ]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


async def play(handle: Any, routers: int, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    # Every router has a request before it starts, and knows the fleet.
    await states(handle, routers)
    await asyncio.gather(*(pages(handle) for _ in range(2)))
    turns = [(talk, turn) for turn in range(TURNS) for talk in range(CONVERSATIONS)]
    waiting = iter(turns)
    began = await states(handle, routers)
    began_s = time.monotonic()

    async def client() -> None:
        for talk, turn in waiting:
            own = 10_000 * (talk + 1)
            tokens = [*range(SYSTEM_TOKENS), *range(own, own + TURN_TOKENS * (turn + 1))]
            await handle.call.remote({"prompt": tokens, "max_tokens": 8 + rng.randrange(16)})

    await asyncio.gather(*(client() for _ in range(CLIENTS)))
    elapsed_s = time.monotonic() - began_s
    ended = await states(handle, routers)
    read = await pages(handle)
    told = [it["exchange"]["told"] for _, it in ended.values() if it]
    cpu_s = [ended[pid][0] - began[pid][0] for pid in ended]
    first_tokens = total(read, "vllm:time_to_first_token_seconds_count")
    return {
        "hits": total(read, "vllm:prefix_cache_hits_total")
        / total(read, "vllm:prefix_cache_queries_total"),
        "ttft_ms": 1e3 * total(read, "vllm:time_to_first_token_seconds_sum") / first_tokens,
        "messages_per_s": statistics.mean(told) / elapsed_s,
        "cpu_ms_per_s": 1e3 * statistics.mean(cpu_s) / elapsed_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--routers", default="1,2,4")
    parser.add_argument("--exchange-ms", default="10,0")
    parser.add_argument("--kv-events", default="auto", choices=("auto", "off"))
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_HAPROXY_METRICS_PORT", "0")
    import ray
    from ray import serve

    ray.init(
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
        logging_level="warning",
    )
    serve.start(proxy_location="Disabled")
    rows: dict[str, dict[str, float]] = {}
    for routers in map(int, args.routers.split(",")):
        for exchange_ms in map(float, args.exchange_ms.split(",")):
            played = []
            for seed in range(args.seeds):
                handle = deploy(serve, routers, exchange_ms, args.kv_events)
                played.append(asyncio.run(play(handle, routers, seed)))
                serve.delete("bench")
            name = f"{routers} routers, " + (
                f"every {exchange_ms:g} ms" if exchange_ms else "alone"
            )
            rows[name] = {key: statistics.mean(it[key] for it in played) for key in played[0]}
            print(name, {key: round(value, 3) for key, value in rows[name].items()}, flush=True)
    print("BENCH " + json.dumps(rows))
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
