"""At home in vLLM: the brain inside the engine's own processes.

- :class:`TurnScheduler`: ``--scheduler-cls llmd_sched.vllm.TurnScheduler`` orders the waiting queue
  by ``flow.turns``: priorities, tenants, deadlines, short prompts first.
- :class:`RankRouter`: picks the data-parallel rank of each request of an ``AsyncLLM``.
- :class:`StatLogger`: tells routers how the engine is, step by step; vLLM finds it by itself where
  the wheel is installed, and it does nothing until somebody follows.
- :class:`LlmdConnector`: ``--kv-transfer-config`` with it keeps KV blocks in a store that the
  engines of a node share.
- :mod:`llmd_sched.vllm.eplb`: places experts where ``LLMD_EPLB`` asks for it.
- :class:`SignalFeed`: takes in, in a router's process, what a :class:`StatLogger` publishes.

Written for vLLM 0.32; parts of it are not vLLM's public interface, and another version that lacks
one is refused with its name (:class:`llmd_sched.MissingDependencyError`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmd_sched.vllm._connector.connector import LlmdConnector as LlmdConnector
    from llmd_sched.vllm._feed import SignalFeed as SignalFeed
    from llmd_sched.vllm._ranks import RankRouter as RankRouter
    from llmd_sched.vllm._scheduler import SyncTurnScheduler as SyncTurnScheduler
    from llmd_sched.vllm._scheduler import TurnScheduler as TurnScheduler
    from llmd_sched.vllm._stats import StatLogger as StatLogger

__all__ = [
    "LlmdConnector",
    "RankRouter",
    "SignalFeed",
    "StatLogger",
    "SyncTurnScheduler",
    "TurnScheduler",
]

# An engine's core needs the scheduler alone, a router's process neither: each is imported when it
# is asked for.
_WHERE = {
    "LlmdConnector": "_connector.connector",
    "RankRouter": "_ranks",
    "SignalFeed": "_feed",
    "StatLogger": "_stats",
    "SyncTurnScheduler": "_scheduler",
    "TurnScheduler": "_scheduler",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
