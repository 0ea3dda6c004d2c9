"""Wide expert parallelism: where experts go, what moving them costs, and which rank gets a request.

Should I balance experts, and with how many redundant ones? From a load that was recorded, tokens of
``layers x experts``:

>>> import numpy as np
>>> from llmd_sched import moe
>>> load = np.random.default_rng(0).lognormal(0, 0.7, (4, 256))
>>> advice = moe.advise_experts(load, gpus=32, nodes=4)
>>> advice["enable"], advice["rows"][advice["best"]]["redundant"]
(True, 32)
>>> placed = moe.place_experts(load, slots=288, gpus=32, nodes=4)
>>> bool(placed.balance(load).max() < 1.005)
True

:mod:`llmd_sched.vllm.eplb` places experts inside vLLM; :func:`sglang_expert_location` is what
SGLang takes. The rules and the formulas are those of the Rust core (``src/brain/moe``).
"""

from __future__ import annotations

import json

from llmd_sched._core import (
    BalanceWatch,
    ExpertMap,
    RankScorer,
    advise_experts,
    noise_floor,
    place_experts,
    plan_migration,
    read_expert_load,
    rebalance_experts,
    simulate_expert_steps,
    simulate_ranks,
)

__all__ = [
    "BalanceWatch",
    "ExpertMap",
    "RankScorer",
    "advise_experts",
    "noise_floor",
    "place_experts",
    "plan_migration",
    "read_expert_load",
    "rebalance_experts",
    "sglang_expert_location",
    "simulate_expert_steps",
    "simulate_ranks",
]


def sglang_expert_location(placed: ExpertMap) -> str:
    """A map as SGLang's ``--init-expert-location`` takes it: JSON, given so or as a file.

    SGLang divides an expert's tokens evenly among its replicas: :attr:`ExpertMap.shares` are not
    part of it.

    >>> from llmd_sched import moe
    >>> moe.sglang_expert_location(moe.place_experts([[4, 3, 2, 1]], slots=4, gpus=2))
    '{"physical_to_logical_map": [[0, 3, 1, 2]]}'
    """
    return json.dumps({"physical_to_logical_map": placed.physical_to_logical.tolist()})
