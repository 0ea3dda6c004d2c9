"""One decision from Python: 8,192 and 32,768 tokens in numpy, 64 endpoints, warm index.

Thread CPU time of ``Router.route``, so that neighbours on the machine do not count; each figure is
the median of 7 batches. Beside it what it is made of, in the same run: hashing the prompt, and
matching it in the index. Prints one line ``BENCH {json}`` last.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from llmd_sched import Decision, Router, block_keys

BATCHES = 7


def main() -> None:
    options = arguments()
    figures: dict[str, float] = {}
    for tokens in options.tokens:
        figures |= measure(options, tokens)
    figures["endpoints"] = options.endpoints
    print("BENCH", json.dumps(figures))


def measure(options: argparse.Namespace, tokens: int) -> dict[str, float]:
    """Every figure for prompts of ``tokens`` tokens."""
    rng = np.random.default_rng(1)
    size = options.block_size
    router = Router(block_size=size, seed=1, **options.profile)
    for index in range(options.endpoints):
        router.add_endpoint(f"http://10.0.0.{index}:8000", model="m")
    prompts = prompts_of(rng, tokens)
    # Every prompt is held somewhere: the steady state of a router that does its work.
    for prompt in prompts:
        router.finish(router.route(prompt, model="m"), 64)
    as_list = prompts[0].tolist()
    as_bytes = [prompt.tobytes() for prompt in prompts]
    keyed = [router.prompt_keys(prompt, model="m") for prompt in prompts]
    flat, offsets = np.concatenate(prompts), np.arange(len(prompts) + 1) * tokens

    def cancel_all(decisions: list[object]) -> None:
        for decision in decisions:
            assert isinstance(decision, Decision)
            router.cancel(decision)

    def cancel_batches(batches: list[object]) -> None:
        for batch in batches:
            assert isinstance(batch, list)
            cancel_all(batch)

    def life(request: int) -> None:
        decision = router.route(prompts[request % 16], model="m")
        router.first_token(decision)
        router.finish(decision, 64)

    def explained(request: int) -> Decision:
        decision = router.route(prompts[request % 16], model="m")
        assert decision.explanation.picker
        return decision

    requests = options.requests * 8192 // max(tokens, 8192)
    few = requests // 10
    timed = {
        "route": median_us(
            requests, lambda i: router.route(prompts[i % 16], model="m"), cancel_all
        ),
        "route_bytes": median_us(
            requests, lambda i: router.route(as_bytes[i % 16], model="m"), cancel_all
        ),
        "route_list": median_us(few, lambda _: router.route(as_list, model="m"), cancel_all),
        "route_keys": median_us(requests, lambda i: router.route(keyed[i % 16]), cancel_all),
        "route_many": median_us(
            few, lambda _: router.route_many(flat, offsets, model="m"), cancel_batches
        )
        / len(prompts),
        "route_explained": median_us(few, explained, cancel_all),
        "life": median_us(requests, life),
        "hash": median_us(
            requests, lambda i: block_keys(prompts[i % 16], block_size=size, model="m")
        ),
    }
    router.close()
    short = f"{tokens // 1024}k_{options.endpoints}w"
    for name, micros in timed.items():
        ratio = micros / timed["route"]
        print(f"{name:18} {micros:9.2f} us   ratio {ratio:5.2f}   ({short})")
    return {f"py_{name}_{short}": round(micros, 2) for name, micros in timed.items()}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, nargs="+", default=[8192, 32768])
    parser.add_argument("--endpoints", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--requests", type=int, default=2000, help="requests a batch")
    parser.add_argument("--profile", type=lambda name: {"profile": name}, default={})
    return parser.parse_args()


def prompts_of(rng: np.random.Generator, tokens: int) -> list[npt.NDArray[np.uint32]]:
    """16 conversations over 4 shared beginnings: what an index of a chat service looks like."""
    shared = [rng.integers(0, 128_000, tokens // 2, dtype=np.uint32) for _ in range(4)]
    return [
        np.concatenate([shared[i % 4], rng.integers(0, 128_000, tokens // 2, dtype=np.uint32)])
        for i in range(16)
    ]


def median_us(
    requests: int,
    call: Callable[[int], object],
    clean_up: Callable[[list[object]], None] = list.clear,
) -> float:
    """Median over the batches of a call's mean thread CPU time, after one batch to warm up.

    What the calls return is handed to ``clean_up`` off the clock, every 64 calls.
    """
    batches = []
    for _ in range(BATCHES + 1):
        spent = 0
        for first in range(0, requests, 64):
            start = time.thread_time_ns()
            results = [call(request) for request in range(first, first + 64)]
            spent += time.thread_time_ns() - start
            clean_up(results)
        batches.append(spent / (-(-requests // 64) * 64) / 1000)
    return statistics.median(batches[1:])


if __name__ == "__main__":
    main()
