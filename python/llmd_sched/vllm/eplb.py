"""Expert placement inside vLLM: ``LLMD_EPLB=mend vllm serve ... --enable-eplb``.

vLLM asks a policy where experts go; this one asks :mod:`llmd_sched.moe`. It takes the place of
vLLM's default policy, since that is the only name which asynchronous balancing accepts. vLLM finds
it by itself where the wheel is installed, and nothing changes unless ``LLMD_EPLB`` says so, in the
environment of every rank alike:

- ``LLMD_EPLB=mend`` changes few experts of the map there is (16 slots a layer), and places a layer
  anew where that leaves GPUs more than 0.05 of the mean less even.
  ``mend,moves=8,target=1.02,gap=0.1``.
- ``LLMD_EPLB=place`` places all anew. ``place,policy=fastest,phase=prefill``.
- ``record=PATH`` with either saves each load that the first rank is asked about (``.npy``), for
  ``llmd-sched moe advise``.

Every rank asks for itself, and equal loads give equal maps on every machine.
"""

from __future__ import annotations

import inspect
import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmd_sched import moe
from llmd_sched._errors import ConfigError
from llmd_sched.vllm._borrowed import borrowed, lacks

_POLICIES = "vllm.distributed.eplb.policy"
_PARAMETERS = [
    "weight",
    "num_replicas",
    "num_groups",
    "num_nodes",
    "num_ranks",
    "old_global_expert_indices",
]
_LOGGER = logging.getLogger("vllm.llmd_sched")


@dataclass(frozen=True)
class Settings:
    """What ``LLMD_EPLB`` says."""

    way: str
    moves: int = 16
    target: float = 1.01
    gap: float = 0.05
    policy: str = "balanced"
    phase: str = "decode"
    record: str = ""

    @classmethod
    def read(cls, text: str) -> Settings:
        """Raises :class:`llmd_sched.ConfigError` for what it cannot say."""
        way, *pairs = text.split(",")
        if way not in ("mend", "place"):
            raise ConfigError(f"LLMD_EPLB={text}: begin with mend or place")
        kinds: dict[str, type] = {"record": str}
        if way == "mend":
            kinds |= {"moves": int, "target": float, "gap": float}
        else:
            kinds |= {"policy": str, "phase": str}
        given: dict[str, Any] = {}
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key not in kinds:
                raise ConfigError(f"LLMD_EPLB={text}: {way} has no {key!r}: it has {sorted(kinds)}")
            try:
                given[key] = kinds[key](value)
            except ValueError as error:
                raise ConfigError(f"LLMD_EPLB={text}: {key} is {value!r}: {error}") from error
        return cls(way, **given)


def register() -> None:
    """Puts the policy where vLLM looks for its own, if ``LLMD_EPLB`` says so.

    Raises :class:`llmd_sched.MissingDependencyError` for a vLLM that asks its policies otherwise.
    """
    text = os.environ.get("LLMD_EPLB", "")
    if not text:
        return
    settings = Settings.read(text)
    policies, base = borrowed(_POLICIES, "EPLB_POLICIES", "AbstractEplbPolicy")
    asked = list(inspect.signature(base.rebalance_experts).parameters)
    if asked != _PARAMETERS or "default" not in policies:
        raise lacks(f"rebalance_experts({', '.join(_PARAMETERS)})", _POLICIES)
    policies["default"] = _policy(base, settings)
    _LOGGER.info("experts are placed by llmd-sched: %s", settings)


def _policy(base: Any, settings: Settings) -> type:
    import torch

    class LlmdEplbPolicy(base):  # type: ignore[misc]
        """vLLM's question, llmd-sched's answer."""

        @classmethod
        def rebalance_experts(
            cls,
            weight: Any,
            num_replicas: int,
            num_groups: int,
            num_nodes: int,
            num_ranks: int,
            old_global_expert_indices: Any = None,
        ) -> Any:
            load = weight.double().cpu().numpy()
            old = None
            if old_global_expert_indices is not None:
                old = old_global_expert_indices.cpu().numpy()
                # With another number of ranks there is nothing to keep.
                old = old if old.shape == (len(load), num_replicas) else None
            _record(load, settings.record)
            placed = _placed(load, num_replicas, num_groups, num_nodes, num_ranks, old, settings)
            experts = placed.physical_to_logical
            _LOGGER.info(
                "experts placed: fullest GPU %.3f times the mean, %d of %d slots changed",
                placed.balance(load).mean(),
                experts.size if old is None else int((experts != old).sum()),
                experts.size,
            )
            return torch.from_numpy(experts)

    return LlmdEplbPolicy


def _placed(
    load: np.ndarray[Any, Any],
    slots: int,
    groups: int,
    nodes: int,
    gpus: int,
    old: np.ndarray[Any, Any] | None,
    settings: Settings,
) -> moe.ExpertMap:
    if settings.way == "mend" and old is not None:
        return moe.rebalance_experts(
            load,
            old,
            gpus=gpus,
            nodes=nodes,
            max_moves_per_layer=settings.moves,
            target=settings.target,
            anew_gap=settings.gap,
        )
    policy: Any = settings.policy
    return moe.place_experts(
        load,
        slots=slots,
        gpus=gpus,
        nodes=nodes,
        groups=max(groups, 1),
        old=old,
        policy=policy,
        model={"phase": settings.phase},
    )


def _record(load: np.ndarray[Any, Any], path: str) -> None:
    """The first rank's, whole at any time."""
    if not path:
        return
    import torch

    parallel = torch.distributed
    if parallel.is_available() and parallel.is_initialized() and parallel.get_rank() != 0:
        return
    part = f"{path}.part"
    with open(part, "wb") as file:
        np.save(file, load)
    os.replace(part, path)
