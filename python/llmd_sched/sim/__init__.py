"""The simulator: a workload, a world, a policy; virtual time; the very brain of a ``Router``.

>>> from llmd_sched import sim
>>> prompts = 200
>>> workload = sim.Workload(
...     at_ms=[20.0 * it for it in range(prompts)],
...     prompt_tokens=[1600] * prompts,
...     output_tokens=[50] * prompts,
...     keys=[[it % 10 * 1000 + block for block in range(100)] for it in range(prompts)],
...     block_size=16,
... )
>>> world = sim.World(replicas=2, engine=sim.Engine("llama-3.1-8b_h100_tp1"))
>>> result = sim.run(workload, world, policy="default")
>>> result.summary.requests, result.summary.served
(180, 180)
>>> result.rows["ttft_ms"].shape
(200,)

:func:`sweep` plays all combinations of worlds, policies and seeds, on threads or on Ray.
Equal workloads, worlds, policies and seeds give equal rows, wherever they are played.

Modelled: vLLM's scheduler and prefix cache, with step times fitted to published tables. Not
modelled: the network, tokenizers.
"""

from llmd_sched._core import Workload, builtin_policies
from llmd_sched.sim._result import FATES, Result, Summary
from llmd_sched.sim._run import Policy, capacity, run
from llmd_sched.sim._sweep import sweep
from llmd_sched.sim._table import Table
from llmd_sched.sim._world import ClosedLoop, Engine, OpenLoop, Outage, Slo, World

__all__ = [
    "FATES",
    "ClosedLoop",
    "Engine",
    "OpenLoop",
    "Outage",
    "Policy",
    "Result",
    "Slo",
    "Summary",
    "Table",
    "Workload",
    "World",
    "builtin_policies",
    "capacity",
    "run",
    "sweep",
]
