"""``python -m llmd_sched.demo``: see ``--help``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from llmd_sched import Router

from .drive import Driver, Outcome
from .engines import (
    HIT_TOKENS,
    QUERY_TOKENS,
    EmbeddedFleet,
    counters,
    reset_prefix_cache,
)
from .table import Column, percentile_ms, render
from .workload import ChatShape, Workload, chat, mooncake

PROFILES = ["round-robin", "least-request", "session-hash", "default"]
# Sessions are hashed to the engines' names, which are the same in every run: by address they would
# be dealt anew with every choice of ports, and columns could not be compared between runs.
NAME_LABEL = "engine"
BY_NAME = {"scorers": [{"name": "session-hash-scorer", "label": NAME_LABEL}]}
CONFIG = {"schedule": {"profiles": {"session-hash": BY_NAME}}}
# Of the tokens that all sessions would fill: tight enough that placement decides what survives.
FLEET_KV_SHARE = 0.7
SETTLE_TIMEOUT_S = 60.0


def arguments() -> argparse.Namespace:
    """Command line."""
    shape = ChatShape()
    parser = argparse.ArgumentParser(prog="llmd-sched demo", description=__doc__)
    parser.add_argument("--engines", type=int, default=4, help="embedded engines to start")
    parser.add_argument(
        "--attach", nargs="+", metavar="URL", help="use these running engines instead"
    )
    parser.add_argument("--model", default="demo", help="model name the engines serve")
    parser.add_argument("--engine-profile", default="qwen3-32b_h100_tp2")
    parser.add_argument("--speed", type=float, default=1.0, help="virtual seconds a second")
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--kv-blocks", type=int, help="KV blocks an engine (default: 0.7x fits)")
    parser.add_argument("--sessions", type=int, default=shape.sessions)
    parser.add_argument("--turns", type=int, default=shape.turns)
    parser.add_argument("--system-prompts", type=int, default=shape.system_prompts)
    parser.add_argument("--system-tokens", type=int, default=shape.system_tokens)
    parser.add_argument("--user-tokens", type=int, default=shape.user_tokens)
    parser.add_argument("--output-tokens", type=int, default=shape.output_tokens)
    parser.add_argument("--think-s", type=float, default=shape.think_s)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trace", type=Path, help="replay a Mooncake-format trace instead")
    parser.add_argument("--trace-rows", type=int, default=200)
    parser.add_argument("--profiles", nargs="+", default=PROFILES, metavar="NAME")
    parser.add_argument("--json", action="store_true", help="print the table as one JSON line too")
    return parser.parse_args()


def workload_of(options: argparse.Namespace) -> Workload:
    """The workload that the command line asks for."""
    if options.trace:
        return mooncake(options.trace, limit=options.trace_rows, seed=options.seed)
    return chat(
        ChatShape(
            sessions=options.sessions,
            turns=options.turns,
            system_prompts=options.system_prompts,
            system_tokens=options.system_tokens,
            user_tokens=options.user_tokens,
            output_tokens=options.output_tokens,
            think_s=options.think_s,
            seed=options.seed,
        )
    )


@contextlib.contextmanager
def cold_engines(options: argparse.Namespace, workload: Workload) -> Iterator[list[str]]:
    """URLs of engines with empty caches: fresh processes, or the attached ones after a reset."""
    if options.attach:
        for url in options.attach:
            reset_prefix_cache(url, options.model)
        yield options.attach
        return
    share = FLEET_KV_SHARE * workload.working_set_tokens / options.engines
    with EmbeddedFleet(
        options.engines,
        model=options.model,
        kv_blocks=options.kv_blocks or math.ceil(share / options.block_size),
        block_size=options.block_size,
        profile=options.engine_profile,
        speed=options.speed,
    ) as fleet:
        yield fleet.urls


async def column(options: argparse.Namespace, workload: Workload, profile: str) -> Column:
    """Runs the workload once, routed by one profile."""
    with cold_engines(options, workload) as urls:
        before = [counters(url) for url in urls]
        with Router(
            CONFIG, block_size=options.block_size, profile=profile, seed=options.seed
        ) as router:
            for number, url in enumerate(urls):
                await follow(router, url, f"engine-{number}")
            driver = Driver(
                router,
                options.model,
                options.speed,
                lambda outcome: show_progress(progress_line(profile, outcome, workload)),
            )
            outcome = await driver.run(workload)
        after = [counters(url) for url in urls]
    sys.stderr.write(f"\r{progress_line(profile, outcome, workload)}   \n")
    for failure in outcome.failures[:3]:
        sys.stderr.write(f"failed: {failure}\n")

    def gained(name: str) -> int:
        return int(sum(a[name] - b[name] for a, b in zip(after, before, strict=True)))

    return Column(
        profile=profile,
        requests=sum(outcome.requests_by_endpoint.values()),
        failures=len(outcome.failures),
        hit_tokens=gained(HIT_TOKENS),
        prompt_tokens=gained(QUERY_TOKENS),
        ttft_p50_ms=percentile_ms(outcome.ttft_s, 50),
        ttft_p99_ms=percentile_ms(outcome.ttft_s, 99),
        requests_per_endpoint=[outcome.requests_by_endpoint[url] for url in urls],
    )


async def follow(router: Router, url: str, name: str) -> None:
    """Adds an engine, and returns when what it did before is known: an attached one has a past."""
    for endpoint in router.discover(url, labels={NAME_LABEL: name}):
        router.wait_kv_connected(endpoint, timeout_s=SETTLE_TIMEOUT_S)
        deadline = time.monotonic() + SETTLE_TIMEOUT_S
        while not router.kv_position(endpoint).settled:
            if time.monotonic() > deadline:
                raise TimeoutError(f"what {url} holds is not known: {router.kv_position(endpoint)}")
            await asyncio.sleep(0.01)


def progress_line(profile: str, outcome: Outcome, workload: Workload) -> str:
    """How far a column is."""
    spread = " ".join(str(n) for _, n in sorted(outcome.requests_by_endpoint.items()))
    return (
        f"{profile:>16}: {len(outcome.ttft_s)}/{workload.requests} answers, "
        f"TTFT p50 {percentile_ms(outcome.ttft_s, 50):.0f} ms, requests {spread}"
    )


def show_progress(line: str) -> None:
    """Rewrites the line on a terminal as answers end; a log file gets only the last one."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{line}   ")
        sys.stderr.flush()


def main() -> int:
    """Runs every column and prints the table."""
    options = arguments()
    workload = workload_of(options)
    print(
        f"{len(workload.sessions)} sessions, {workload.requests} requests, "
        f"working set {workload.working_set_tokens:,} tokens"
    )
    columns = [asyncio.run(column(options, workload, profile)) for profile in options.profiles]
    print(render(columns))
    if options.json:
        print(json.dumps([column.as_dict() for column in columns]))
    return 1 if any(column.failures for column in columns) else 0


if __name__ == "__main__":
    sys.exit(main())
