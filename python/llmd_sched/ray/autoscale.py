"""Sizes a Ray Serve deployment by how near it is to missing its objectives.

.. code-block:: python

    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
    from llmd_sched.ray.meter import ReplicaMeter

    @serve.deployment(
        autoscaling_config=AutoscalingConfig(
            min_replicas=1,
            max_replicas=8,
            upscale_delay_s=0,
            downscale_delay_s=0,
            policy=AutoscalingPolicy(
                policy_function="llmd_sched.ray.autoscale:SloPolicy",
                policy_kwargs={"startup_s": 90},
            ),
        ),
    )
    class Engine:
        def __init__(self):
            slo = {"ttft_ms": 1000, "tpot_ms": 60}
            self.meter = ReplicaMeter("qwen3-32b_h100_tp2", slo=slo)

        def record_autoscaling_stats(self):
            return self.meter.stats()

The rule has its own delays, so Ray's are set to 0: Ray would add them.

Ray pickles this module by value: what it needs lives in other modules.
"""

from __future__ import annotations

from typing import Any

from llmd_sched.ray._sizing import Sizer


class SloPolicy:
    """The policy: of a deployment, or of an application, each of whose deployments it sizes apart.

    Keywords: those of :class:`llmd_sched.SloScaler` but for ``min_replicas`` and ``max_replicas``,
    which are the deployment's; and ``look_s`` (10), seconds between two looks: Ray asks ten times
    a second, and replicas report every ten seconds, or as
    ``RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S`` says.

    It reads what replicas report by :meth:`ReplicaMeter.stats`, calls nothing that waits, and
    raises nothing: where it cannot say, the deployment keeps its size. The state that it returns
    tells why: the verdict of :meth:`SloScaler.look`, or ``error``.

    Raises :class:`ConfigError`, in the controller, for keywords that cannot be.

    >>> from llmd_sched.ray.autoscale import SloPolicy
    >>> SloPolicy(look_s=0)
    Traceback (most recent call last):
    ...
    llmd_sched._errors.ConfigError: look_s is 0: give seconds above 0
    """

    def __init__(self, *, look_s: float = 10.0, **settings: Any) -> None:
        self._settings = {"look_s": look_s, **settings}
        # Checked where the policy is made; each deployment then gets its own.
        Sizer(**self._settings)
        self._sizers: dict[Any, Sizer] = {}

    def __call__(self, context: Any) -> tuple[Any, Any]:
        """Replicas that there should be, and why, as Ray asks for them."""
        if not isinstance(context, dict):
            return self._sizer(context).size(context)
        sized = {name: self._sizer(it).size(it) for name, it in context.items()}
        desired = {name: replicas for name, (replicas, _) in sized.items()}
        return desired, {name: state for name, (_, state) in sized.items()}

    def _sizer(self, context: Any) -> Sizer:
        name = context.deployment_id
        if name not in self._sizers:
            self._sizers[name] = Sizer(**self._settings)
        return self._sizers[name]
