"""The brain inside Ray Serve: a request router for any deployment.

Name the class in the deployment's configuration; nothing else changes:

.. code-block:: python

    from ray import serve
    from ray.serve.config import RequestRouterConfig

    @serve.deployment(
        num_replicas=4,
        request_router_config=RequestRouterConfig(
            request_router_class="llmd_sched.ray:LlmdRouter",
            request_router_kwargs={"slo": {"ttft_ms": 1000, "tpot_ms": 60}},
        ),
    )
    class Engine: ...

Replicas whose class is an :class:`EngineSignals` tell it where their engines publish KV events, and
how loaded those are.

Needs ``pip install 'llmd-sched[ray]'``. Importing this package does not import Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llmd_sched.ray._cordons import cordon, drain, uncordon
from llmd_sched.ray._requests import asked
from llmd_sched.ray._settings import Settings
from llmd_sched.ray._signals import EngineSignals

if TYPE_CHECKING:
    from llmd_sched.ray.router import LlmdRouter

__all__ = [
    "EngineSignals",
    "LlmdRouter",
    "Settings",
    "asked",
    "cordon",
    "counters",
    "drain",
    "uncordon",
]


def counters() -> dict[str, dict[str, Any]]:
    """What the routers of this process did, by deployment.

    Of each: ``picks``; ``repicks``, picks of a request that had been picked a place before;
    ``fallbacks``, times that Ray chose because of an error, and ``last_error``; ``moved``, requests
    that Ray sent elsewhere than picked; ``reports``, times that a replica's routing stats told how
    its engine is, and ``bad_reports``, times that what a replica told made no sense; ``booked``,
    requests picked and not over, ``waiting`` of which Ray has not sent yet; ``cordoned`` replicas;
    ``pick_cpu_us``, mean CPU time of a pick, microseconds, of one pick in 16, in which tokenising
    is not; ``tokenizer``, as :meth:`llmd_sched.Tokenizer.counters` says, with prompts that were
    made tokens ``elsewhere``, in a thread, and ``failed`` ones; ``exchange``, how
    telling other routers of the deployment goes: ``told`` and ``heard`` messages, those
    ``refused``, routers ``followed``, ``connected`` ones of them and ``followers``, ``meetings`` at
    the rendezvous, ``failures``, and ``last_error``; ``router``, what
    :meth:`llmd_sched.Router.stats` says.
    """
    from llmd_sched.ray._deployments import all_deployments

    return {name: brain.counters() for name, brain in all_deployments().items()}


def __getattr__(name: str) -> Any:
    if name == "LlmdRouter":
        from llmd_sched.ray.router import LlmdRouter

        return LlmdRouter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
