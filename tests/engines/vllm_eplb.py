"""What runs inside vLLM's own environment, for test_vllm_eplb.py: prints one line of JSON."""

from __future__ import annotations

import hashlib
import json
import sys
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from vllm.distributed.eplb import async_worker
from vllm.distributed.eplb.policy import EPLB_POLICIES, DefaultEplbPolicy
from vllm.plugins import load_general_plugins

LAYERS, EXPERTS, SLOTS, GROUPS, NODES, GPUS = 12, 256, 288, 8, 4, 32


def load(seed: int, drift: float = 0.0) -> torch.Tensor:
    tokens = np.random.default_rng(seed).lognormal(6, 0.7, (LAYERS, EXPERTS))
    tokens *= np.random.default_rng(seed + 1).lognormal(0, drift, tokens.shape) if drift else 1
    return torch.from_numpy(tokens.round()).to(torch.int64)


def asked(policy: Any, weight: torch.Tensor, old: torch.Tensor) -> torch.Tensor:
    """Through the function that vLLM's balancing thread calls."""
    stats = SimpleNamespace(
        global_expert_load_window=weight,
        num_replicas=SLOTS,
        num_groups=GROUPS,
        num_nodes=NODES,
        num_gpus=GPUS,
    )
    model, state = SimpleNamespace(eplb_stats=stats), SimpleNamespace(policy=policy)
    return async_worker.run_rebalance_experts(model, state, old, None)


def balance(placed: torch.Tensor, weight: torch.Tensor) -> float:
    counts = torch.zeros(weight.shape, dtype=torch.float64)
    counts.scatter_add_(1, placed, torch.ones(placed.shape, dtype=torch.float64))
    gpus = (weight / counts).gather(1, placed).reshape(LAYERS, GPUS, -1).sum(2)
    return float((gpus.amax(1) / gpus.mean(1)).mean())


def main() -> None:
    load_general_plugins()
    policy = EPLB_POLICIES["default"]
    weight = load(1)
    initial = (torch.arange(SLOTS) % EXPERTS).repeat(LAYERS, 1)
    first = asked(policy, weight, initial)
    drifted = load(1, 0.1)
    second = asked(policy, drifted, first)
    own = asked(DefaultEplbPolicy, weight, initial)
    own_second = asked(DefaultEplbPolicy, drifted, own)
    text = first.numpy().tobytes() + second.numpy().tobytes()
    answer = {
        "policy": policy.__name__,
        "dtype": str(first.dtype),
        "digest": hashlib.sha256(text).hexdigest(),
        "is_whole": all(len(set(layer)) == EXPERTS for layer in first.tolist()),
        "balance": [balance(first, weight), balance(second, drifted)],
        "vllm_balance": [balance(own, weight), balance(own_second, drifted)],
        "moved": int((second != first).sum()) / second.numel(),
        "vllm_moved": int((own_second != own).sum()) / own.numel(),
    }
    print("ANSWER", json.dumps(answer))


if __name__ == "__main__":
    sys.exit(main())
