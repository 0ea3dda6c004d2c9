"""Our Python interface against the rivals', in one process and in turns.

64 endpoints; 16 conversations over 4 shared beginnings, each held by one endpoint. Figures are
medians of 9 batches, ratios those of each batch (theirs : ours, higher is better for us). Ratios
count the calling thread's CPU time; those named ``_process`` count all threads of the process,
which charges the rivals for what they do on threads of their own. Prints ``BENCH {json}`` last.

Rivals that are not installed are left out; ``make bench-decision`` installs them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec

from llmd_sched import Decision, Router
from prompts import Prompt, as_text, conversations
from timing import Cpu, batch, median_us, process_ratio, race, thread_ratio

ENDPOINTS = 64
BLOCK_TOKENS = 16
CALLS = 512


def main() -> None:
    print("BENCH", json.dumps(peers_figures()))


def peers_figures() -> dict[str, float]:
    figures: dict[str, float] = {}
    for tokens, name in ((8_192, "8k"), (32_768, "32k")):
        figures |= at(conversations(tokens), name)
    for key, value in figures.items():
        print(f"{key:44} {value:10.2f}")
    return {key: round(value, 2) for key, value in figures.items()}


def at(prompts: list[Prompt], name: str) -> dict[str, float]:
    router = our_router(prompts)
    texts = [as_text(prompt) for prompt in prompts]
    for text in texts:
        router.finish(router.route(text=text, model="m"), 64)

    def of(items: list[Prompt], number: int) -> Prompt:
        return items[number % len(items)]

    def cancel_all(decisions: list[object]) -> None:
        for decision in decisions:
            assert isinstance(decision, Decision)
            router.cancel(decision)

    def route(number: int) -> Decision:
        return router.route(of(prompts, number), model="m")

    def route_text(number: int) -> Decision:
        return router.route(text=texts[number % len(texts)], model="m")

    def match(number: int) -> object:
        return router.match(of(prompts, number), model="m").matched_blocks

    contenders: dict[str, Callable[[], Cpu]] = {
        "route": lambda: batch(CALLS, route, cancel_all),
        "route_text": lambda: batch(CALLS, route_text, cancel_all),
        "match": lambda: batch(CALLS, match),
    }
    rivals = rivals_for(prompts, texts)
    costs = race(contenders | {rival: run for rival, (run, _, _) in rivals.items()})
    router.close()

    figures = {f"py_route_{name}_64w": median_us(costs["route"])}
    for rival, (_, key, ours) in rivals.items():
        figures[f"{rival}_{name}_us"] = median_us(costs[rival])
        figures[key.format(name)] = thread_ratio(costs[ours], costs[rival])
        figures[f"{key.format(name)}_process"] = process_ratio(costs[ours], costs[rival])
    return figures


def our_router(prompts: list[Prompt]) -> Router:
    router = Router(block_size=BLOCK_TOKENS, seed=1)
    for index in range(ENDPOINTS):
        router.add_endpoint(f"http://10.0.0.{index}:8000", model="m")
    # Every prompt is held somewhere: the steady state of a router that does its work.
    for prompt in prompts:
        router.finish(router.route(prompt, model="m"), 64)
    return router


def rivals_for(
    prompts: list[Prompt], texts: list[str]
) -> dict[str, tuple[Callable[[], Cpu], str, str]]:
    """For each rival its batch, the key of its ratio, and what of ours it is compared with."""
    rivals: dict[str, tuple[Callable[[], Cpu], str, str]] = {}
    if find_spec("dynamo"):
        from rivals.dynamo_radix_tree import RadixTreeRival
        from rivals.dynamo_selection import SelectionRival

        selection = SelectionRival(prompts, ENDPOINTS, BLOCK_TOKENS)
        rivals["selection_service"] = (selection.batch, "py_route_{}_vs_selection", "route")
        radix_tree = RadixTreeRival(prompts, BLOCK_TOKENS)
        rivals["dynamo_radix_tree"] = (radix_tree.batch, "py_match_{}_vs_radix_tree", "match")
    else:
        print("left out: ai-dynamo-runtime is not installed")
    if find_spec("ray"):
        from rivals.ray_prefix_tree import RayRival

        ray = RayRival(texts, ENDPOINTS)
        rivals["ray_prefix_tree"] = (ray.batch, "py_route_text_{}_vs_ray", "route_text")
    else:
        print("left out: ray is not installed")
    return rivals


if __name__ == "__main__":
    main()
