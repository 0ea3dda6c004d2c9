"""One run of a workload in a world."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import PurePath
from typing import Any, Union

from llmd_sched import _core
from llmd_sched._core import Workload
from llmd_sched._types import ConfigSource
from llmd_sched.sim._result import Result, Summary
from llmd_sched.sim._world import World

Policy = Union[str, Mapping[str, Any], "os.PathLike[str]"]
"""The name of a built-in policy, or a ``Router``'s configuration: a mapping, or a path object of a
``.toml``, ``.yaml``, ``.yml`` or ``.json`` file."""


def run(
    workload: Workload,
    world: World | None = None,
    policy: Policy = "default",
    *,
    seed: int | None = None,
) -> Result:
    """Plays a workload in a world under a policy, without the GIL.

    ``policy`` is one of :func:`builtin_policies`, or whatever configures a
    :class:`~llmd_sched.Router`; ``seed`` overrides the world's. Raises
    :class:`~llmd_sched.ConfigError` for a world or a policy that cannot be, or that does not fit
    the workload.

    >>> from llmd_sched import sim
    >>> workload = sim.Workload([0.0], [1000], [11], keys=[[]])
    >>> result = sim.run(workload, sim.World(replicas=1, warmup_share=0.0), "round-robin")
    >>> round(result.summary.ttft_p50_ms, 2)  # 3.52 + 0.05025 * 1000 + 1.6e-6 * 1000**2 / 2
    54.57
    """
    world = world or World()
    if seed is not None:
        world = replace(world, seed=seed)
    found = _core.simulate(workload, world.document(workload), config_of(policy))
    return Result(
        summary=Summary(**found["summary"]),
        rows=found["rows"],
        engines=found["engines"],
        ended_ms=found["ended_ms"],
    )


def capacity(workload: Workload, world: World | None = None) -> float:
    """Requests a second that the fleet completes when all requests come at once.

    They go to whoever has the fewest, so it is what the engines can do, whatever the policy: the
    rate at a load of 1. Open loops only.

    >>> from llmd_sched import sim
    >>> workload = sim.Workload(range(64), [1000] * 64, [10] * 64, keys=[[]] * 64)
    >>> one, two = (sim.capacity(workload, sim.World(replicas=n)) for n in (1, 2))
    >>> 1.8 < two / one < 2.0
    True
    """
    return _core.capacity_requests_per_s(workload, (world or World()).document(workload))


def config_of(policy: Policy) -> ConfigSource:
    """What a router's configuration is under this policy."""
    return {"schedule": {"profile": policy}} if isinstance(policy, str) else policy


def name_of(policy: Policy) -> str:
    """What a table calls a policy."""
    if isinstance(policy, str):
        return policy
    if isinstance(policy, Mapping):
        profile = policy.get("schedule", {}).get("profile")
        return profile if isinstance(profile, str) else "config"
    return PurePath(policy).stem
