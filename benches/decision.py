"""One decision from Python: 8,192 tokens in numpy, 64 endpoints, warm index; then the rivals.

Thread CPU time of ``Router.route``, so that neighbours on the machine do not count; each figure is
the median of 9 batches. Prints one line ``BENCH {json}`` last.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

from index_python import peers_figures
from llmd_sched import Decision, Router, block_keys
from prompts import Prompt, conversations
from timing import batch, median_us, race


def main() -> None:
    options = arguments()
    figures = decision_figures(options) | objective_figures(options)
    if not options.no_peers:
        figures |= peers_figures()
    print("BENCH", json.dumps(figures))


def decision_figures(options: argparse.Namespace) -> dict[str, float]:
    router = Router(block_size=options.block_size, seed=1, **options.profile)
    for index in range(options.endpoints):
        router.add_endpoint(f"http://10.0.0.{index}:8000", model="m")
    prompts = conversations(options.tokens)
    # Every prompt is held somewhere: the steady state of a router that does its work.
    for prompt in prompts:
        router.finish(router.route(prompt, model="m"), 64)

    shape = f"{options.tokens} tokens, {options.endpoints} endpoints"

    def cancel_all(decisions: list[object]) -> None:
        for decision in decisions:
            assert isinstance(decision, Decision)
            router.cancel(decision)

    def prompt_of(request: int) -> Prompt:
        return prompts[request % len(prompts)]

    def life(request: int) -> None:
        decision = router.route(prompt_of(request), model="m")
        router.first_token(decision)
        router.finish(decision, 64)

    def median(calls: int, call: Callable[[int], object], *clean_up: Callable[..., None]) -> float:
        return median_us(race({"": lambda: batch(calls, call, *clean_up)})[""])

    requests, size = options.requests, options.block_size
    decide = median(requests, lambda i: router.route(prompt_of(i), model="m"), cancel_all)
    hashing = median(requests, lambda i: block_keys(prompt_of(i), block_size=size, model="m"))
    whole = median(requests, life)
    as_list = prompts[0].tolist()
    lists = median(requests // 10, lambda _: router.route(as_list, model="m"), cancel_all)
    print(f"{'route, numpy uint32':28} {decide:8.1f} us   ({shape})")
    print(f"{'block_keys alone':28} {hashing:8.1f} us   share {hashing / decide:.2f}")
    print(f"{'route + first_token + finish':28} {whole:8.1f} us   ratio {whole / decide:.2f}")
    print(f"{'route, list of int':28} {lists:8.1f} us   ratio {lists / decide:.2f}")
    router.close()
    return {
        "decision_us_p50": round(decide, 2),
        "block_keys_us_p50": round(hashing, 2),
        "request_us_p50": round(whole, 2),
        "decision_list_us_p50": round(lists, 2),
        "tokens": options.tokens,
        "endpoints": options.endpoints,
    }


def objective_figures(options: argparse.Namespace) -> dict[str, float]:
    """The same with objectives, on a fleet with eight answers under way everywhere."""
    router = Router(block_size=options.block_size, seed=1, **options.profile)
    labels = {"engine-profile": "qwen3-32b_h100_tp2"}
    for index in range(options.endpoints):
        router.add_endpoint(f"http://10.0.0.{index}:8000", model="m", labels=labels)
    prompts = conversations(options.tokens)
    asked = {"model": "m", "ttft_slo_ms": 1000.0, "tpot_slo_ms": 60.0}
    for request in range(8 * options.endpoints):
        router.first_token(router.route(prompts[request % len(prompts)], **asked))

    def cancel_all(decisions: list[object]) -> None:
        for decision in decisions:
            assert isinstance(decision, Decision)
            router.cancel(decision)

    def decide(request: int) -> Decision:
        return router.route(prompts[request % len(prompts)], **asked)

    # Few at a time: they stay booked until the batch is over.
    runs = race({"": lambda: batch(options.endpoints, decide, cancel_all)})
    taken = median_us(runs[""])
    print(f"{'route, with objectives':28} {taken:8.1f} us   (8 answers under way on each)")
    router.close()
    return {"decision_slo_us_p50": round(taken, 2)}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--endpoints", type=int, default=64)
    parser.add_argument("--block-size", type=int, default=16)
    parser.add_argument("--requests", type=int, default=2000, help="requests a batch")
    parser.add_argument("--profile", type=lambda name: {"profile": name}, default={})
    parser.add_argument("--no-peers", action="store_true", help="only our own figures")
    return parser.parse_args()


if __name__ == "__main__":
    main()
