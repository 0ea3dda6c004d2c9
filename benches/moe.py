"""Experts and ranks: balance, moves, time to plan, and steps, beside vLLM's and DeepSeek's EPLB.

Runs in vLLM's environment, with the package on PYTHONPATH: `make bench-moe`.
"""

from __future__ import annotations

import json
import logging
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from llmd_sched import moe
from moe_peers import deepseek

logging.disable(logging.WARNING)
from vllm.distributed.eplb.policy.default import DefaultEplbPolicy  # noqa: E402

LAYERS, EXPERTS, GROUPS = 58, 256, 8
Array = np.ndarray[Any, Any]

ROWS = [
    ("lognormal", 288, 32, 4, 1.005),
    ("lognormal", 288, 32, 8, 1.005),
    ("lognormal", 288, 72, 18, 1.005),
    ("lognormal", 288, 144, 18, None),
    ("lognormal", 320, 320, 40, None),
    ("zipf", 288, 32, 4, 1.005),
    ("zipf", 288, 32, 8, 1.005),
    ("zipf", 288, 144, 18, None),
]

# DeepEP V1's README: 128 tokens, low latency, us; 4096 tokens, normal, GB/s.
LOW_LATENCY = {8: (77, 114), 16: (118, 195), 32: (155, 273), 64: (173, 314)} | {
    128: (192, 369),
    256: (194, 360),
}
NORMAL = {8: (153, 158), 16: (43, 43), 32: (58, 57), 64: (51, 50)}


def lognormal(seed: int) -> Array:
    return np.random.default_rng(seed).lognormal(0, 0.7, (LAYERS, EXPERTS))


def zipf(seed: int) -> Array:
    rng = np.random.default_rng(seed)
    return np.stack([rng.permutation(1e5 / np.arange(1, EXPERTS + 1)) for _ in range(LAYERS)])


def balance(placed: Array, load: Array, gpus: int) -> float:
    """Of replicas that share evenly: what ours and theirs are measured by alike."""
    each = []
    for experts, tokens in zip(placed, load, strict=True):
        counts = np.bincount(experts, minlength=EXPERTS)
        sums = (tokens / counts)[experts].reshape(gpus, -1).sum(1)
        each.append(sums.max() / sums.mean())
    return float(np.mean(each))


def vllm(load: Array, slots: int, gpus: int, nodes: int, old: Array | None = None) -> Array:
    kept = None if old is None else torch.from_numpy(old)
    weight = torch.from_numpy(load)
    placed = DefaultEplbPolicy.rebalance_experts(weight, slots, GROUPS, nodes, gpus, kept)
    return placed.numpy()


def ours(load: Array, slots: int, gpus: int, nodes: int) -> Array:
    return moe.place_experts(load, slots=slots, gpus=gpus, nodes=nodes).physical_to_logical


def cpu_ms(call: Callable[[], object]) -> float:
    begun = time.process_time()
    call()
    return (time.process_time() - begun) * 1e3


def placements() -> dict[str, Any]:
    print(f"{'load':10} {'slots/GPUs/nodes':>17} {'EPLB':>7} {'ours':>7}")
    worst, misses = 0.0, 0
    for name, slots, gpus, nodes, bar in ROWS:
        load = (lognormal if name == "lognormal" else zipf)(0)
        theirs = balance(vllm(load, slots, gpus, nodes), load, gpus)
        own = balance(ours(load, slots, gpus, nodes), load, gpus)
        print(f"{name:10} {f'{slots}/{gpus}/{nodes}':>17} {theirs:7.4f} {own:7.4f}")
        worst = max(worst, own / theirs)
        misses += bar is not None and own > bar
    return {"balance_worst_vs_eplb": worst, "balance_rows_above_bar": misses}


def plan_times(rounds: int) -> dict[str, float]:
    load = lognormal(0)
    tensor = torch.from_numpy(load)
    calls: dict[str, Callable[[], object]] = {
        "ours": lambda: ours(load, 288, 32, 4),
        "vllm": lambda: vllm(load, 288, 32, 4),
        "deepseek": lambda: deepseek(tensor, 288, GROUPS, 4, 32),
    }
    assert (
        abs(
            balance(deepseek(tensor, 288, GROUPS, 4, 32).numpy(), load, 32)
            - balance(vllm(load, 288, 32, 4), load, 32)
        )
        < 1e-3
    )
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(cpu_ms(call))
    medians = {name: statistics.median(each) for name, each in times.items()}
    for name, median in medians.items():
        print(f"plan 58 x 256 -> 288/32/4: {name:9} {median:8.2f} ms of CPU")
    return {
        "plan_ms": medians["ours"],
        "plan_ms_vs_vllm": medians["vllm"] / medians["ours"],
        "plan_ms_vs_deepseek": medians["deepseek"] / medians["ours"],
    }


def moves() -> dict[str, float]:
    load = lognormal(0)
    drifted = load * np.random.default_rng(9).lognormal(0, 0.1, load.shape)
    old = ours(load, 288, 32, 4)
    answer = {}
    for sharing, budget in (("weighted", 0), ("weighted", 4), ("equal", 16)):
        new = moe.rebalance_experts(
            drifted,
            old,
            gpus=32,
            nodes=4,
            max_moves_per_layer=budget,
            target=1.0,
            sharing=sharing,
        )
        moved = float((new.physical_to_logical != old).mean())
        even = float(new.balance(drifted).mean())
        print(f"drift 0.1, {sharing}, {budget} moves: {moved:.4f} of slots, fullest {even:.4f}")
        answer[f"moves_{sharing}_{budget}"] = moved
        answer[f"balance_{sharing}_{budget}"] = even
    eplb = vllm(load, 288, 32, 4)
    again = vllm(drifted, 288, 32, 4, eplb)
    answer["moves_eplb"] = float((again != eplb).mean())
    print(f"drift 0.1, EPLB: {answer['moves_eplb']:.3f} of slots")
    return answer


def near() -> dict[str, float]:
    remote, even = [], []
    for seed in range(4):
        load = lognormal(seed)
        placed = moe.place_experts(
            load, slots=288, gpus=32, nodes=4, policy="near", sharing="weighted"
        )
        remote.append(placed.remote_share(load).mean())
        even.append(placed.balance(load).mean())
    answer = {"remote_share": float(np.mean(remote)), "remote_balance": float(np.mean(even))}
    print(f"near: {answer['remote_share']:.4f} remote, fullest {answer['remote_balance']:.4f}")
    return answer


def deepep() -> dict[str, float]:
    """Even loads, one expert of each GPU to itself: the layer times are DeepEP's."""
    worst = 0.0
    for ranks, published in LOW_LATENCY.items():
        even = np.ones((1, ranks))
        placed = moe.place_experts(even, slots=ranks, gpus=ranks, nodes=max(ranks // 8, 1))
        times = placed.layer_times(even)[0]
        for way, us in zip(("dispatch_us", "combine_us"), published, strict=True):
            worst = max(worst, abs(times[way] / us - 1))
            print(f"DeepEP low latency EP{ranks} {way}: {times[way]:.0f}, published {us}")
    for ranks, published in NORMAL.items():
        nodes = max(ranks // 8, 1)
        even = np.ones((1, ranks))
        placed = moe.place_experts(
            even, slots=ranks, gpus=ranks, nodes=nodes, groups=nodes, policy="grouped"
        )
        times = placed.layer_times(even, model={"phase": "prefill"})[0]
        # Bytes as DeepEP counts them: to nodes, or on one node to GPUs; 8 experts of 4 groups.
        among = 8 if nodes == 1 else min(nodes, 4)
        copies = 4096 * among * (1 - (1 - 1 / among) ** 8)
        for way, each, gb_s in (
            ("dispatch_us", 7392, published[0]),
            ("combine_us", 14336, published[1]),
        ):
            modelled = copies * each / times[way] / 1e3
            worst = max(worst, abs(modelled / gb_s - 1))
            print(f"DeepEP normal EP{ranks} {way}: {modelled:.1f} GB/s, published {gb_s}")
    return {"deepep_fit": worst}


def ranks() -> dict[str, float]:
    answer = {}
    for count in (32, 144, 320):
        played = {
            rule: [moe.simulate_ranks(rule, ranks=count, seed=seed) for seed in range(3)]
            for rule in ("requests", "kv_argmin", "kv_power_of_two", "kv_booked", "scored")
        }
        us = {rule: statistics.mean(it["step_us"] for it in each) for rule, each in played.items()}
        for rule, each in played.items():
            kv = statistics.mean(it["kv_imbalance"] for it in each)
            sequences = statistics.mean(it["sequences_imbalance"] for it in each)
            skews = f"KV {kv:.3f}, requests {sequences:.3f}"
            print(f"{count} ranks {rule:16} {us[rule]:7.0f} us, {skews}")
        best = min(us[rule] for rule in ("requests", "kv_argmin", "kv_power_of_two"))
        answer[f"dp_step_time_{count}"] = us["scored"] / best
    return answer


def main() -> None:
    torch.set_num_threads(1)
    answer = placements() | plan_times(9) | moves() | near() | deepep() | ranks()
    print("BENCH", json.dumps({key: round(value, 4) for key, value in answer.items()}))


if __name__ == "__main__":
    main()
