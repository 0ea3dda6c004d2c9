"""One decision from Python: 8,192 tokens in numpy, 64 endpoints, warm index.

Thread CPU time of ``Router.route``, so that neighbours on the machine do not count; each figure is
the median of 7 batches. Prints one line ``BENCH {json}`` last.
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
    rng = np.random.default_rng(1)
    router = Router(block_size=options.block_size, seed=1, **options.profile)
    for index in range(options.endpoints):
        router.add_endpoint(f"http://10.0.0.{index}:8000", model="m")
    prompts = prompts_of(rng, options.tokens)
    # Every prompt is held somewhere: the steady state of a router that does its work.
    for prompt in prompts:
        router.finish(router.route(prompt, model="m"), 64)

    shape = f"{options.tokens} tokens, {options.endpoints} endpoints"

    def cancel_all(decisions: list[object]) -> None:
        for decision in decisions:
            assert isinstance(decision, Decision)
            router.cancel(decision)

    def prompt_of(request: int) -> npt.NDArray[np.uint32]:
        return prompts[request % len(prompts)]

    def life(request: int) -> None:
        decision = router.route(prompt_of(request), model="m")
        router.first_token(decision)
        router.finish(decision, 64)

    requests, size = options.requests, options.block_size
    decide = median_us(requests, lambda i: router.route(prompt_of(i), model="m"), cancel_all)
    hashing = median_us(requests, lambda i: block_keys(prompt_of(i), block_size=size, model="m"))
    whole = median_us(requests, life)
    as_list = prompts[0].tolist()
    lists = median_us(requests // 10, lambda _: router.route(as_list, model="m"), cancel_all)
    print(f"{'route, numpy uint32':28} {decide:8.1f} us   ({shape})")
    print(f"{'block_keys alone':28} {hashing:8.1f} us   share {hashing / decide:.2f}")
    print(f"{'route + first_token + finish':28} {whole:8.1f} us   ratio {whole / decide:.2f}")
    print(f"{'route, list of int':28} {lists:8.1f} us   ratio {lists / decide:.2f}")
    router.close()
    figures = {
        "decision_us_p50": round(decide, 2),
        "block_keys_us_p50": round(hashing, 2),
        "request_us_p50": round(whole, 2),
        "decision_list_us_p50": round(lists, 2),
        "tokens": options.tokens,
        "endpoints": options.endpoints,
    }
    print("BENCH", json.dumps(figures))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
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
