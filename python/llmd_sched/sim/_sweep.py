"""All combinations of worlds, policies and seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from llmd_sched._core import Workload
from llmd_sched._errors import ConfigError
from llmd_sched.sim._executors import Executor, on_threads
from llmd_sched.sim._progress import Progress
from llmd_sched.sim._run import Policy, name_of, run
from llmd_sched.sim._table import Table
from llmd_sched.sim._world import World


@dataclass(frozen=True)
class Case:
    """One run of a sweep."""

    world_name: str
    world: World
    policy_name: str
    policy: Policy
    seed: int

    def play(self, workload: Workload) -> dict[str, Any]:
        """Its row of the table."""
        summary = run(workload, self.world, self.policy, seed=self.seed).summary
        named = {"world": self.world_name, "policy": self.policy_name, "seed": self.seed}
        return {**named, **asdict(summary)}


def sweep(
    workload: Workload,
    worlds: World | Sequence[World] | Mapping[str, World],
    *,
    policies: str | PathLike[str] | Sequence[Policy] | Mapping[str, Policy] = "default",
    seeds: int | Iterable[int] = 1,
    threads: int | None = None,
    ray: bool | Mapping[str, Any] = False,
    progress: bool | None = None,
) -> Table:
    """Plays every combination of worlds, policies and seeds; a row of the table for each.

    - ``worlds``, ``policies``: one, a list of several, or a mapping whose keys name them in the
      table; else worlds are numbered from 0, and policies have their own name or their file's. A
      policy that is itself a mapping goes into a list or a mapping.
    - ``seeds``: the seeds, or how many of them, from 1 on.
    - ``threads``: how many runs at a time, by default one a core. Runs hold no GIL, and threads
      share the workload where processes would each have a copy.
    - ``ray``: play on Ray instead: True for the cluster that this process is connected to, else
      the one that ``RAY_ADDRESS`` names, else a new one on this machine; a mapping is given to
      ``ray.init``. The workload is put once in the object store.
    - ``progress``: say on standard error how far it is; by default only to a terminal. With tqdm
      installed it is a bar.

    The table has the columns ``world``, ``policy``, ``seed`` and those of :class:`Summary`, in the
    order of worlds, then policies, then seeds, and is equal wherever it is played. The first run
    that fails ends the sweep with its error.

    >>> from llmd_sched import sim
    >>> workload = sim.Workload(range(64), [1000] * 64, [10] * 64, keys=[[]] * 64)
    >>> worlds = {f"{n} replicas": sim.World(replicas=n) for n in (1, 2)}
    >>> table = sim.sweep(workload, worlds, policies=["round-robin", "default"])
    >>> table.columns["world"].tolist()
    ['1 replicas', '1 replicas', '2 replicas', '2 replicas']
    """
    cases = [
        Case(world_name, world, policy_name, policy, seed)
        for world_name, world in _named_worlds(worlds).items()
        for policy_name, policy in _named_policies(policies).items()
        for seed in (range(1, seeds + 1) if isinstance(seeds, int) else list(seeds))
    ]
    if not cases:
        raise ConfigError("nothing to play: give at least one world, one policy and one seed")
    executor: Executor
    if ray is False:
        executor = on_threads(threads)
    else:
        from llmd_sched.sim._ray import on_ray

        executor = on_ray({} if ray is True else ray)
    with Progress(len(cases), shown=progress) as told:
        return Table(executor(workload, cases, told.one_more))


def _named_worlds(worlds: World | Sequence[World] | Mapping[str, World]) -> dict[str, World]:
    if isinstance(worlds, World):
        return {"0": worlds}
    if isinstance(worlds, Mapping):
        return dict(worlds)
    return {str(number): world for number, world in enumerate(worlds)}


def _named_policies(
    policies: str | PathLike[str] | Sequence[Policy] | Mapping[str, Policy],
) -> dict[str, Policy]:
    if isinstance(policies, Mapping):
        return dict(policies)
    several = [policies] if isinstance(policies, (str, PathLike)) else policies
    named = {name_of(policy): policy for policy in several}
    if len(named) < len(several):
        raise ConfigError(
            f"{len(several)} policies have {len(named)} names: give a mapping of names to policies"
        )
    return named
