"""An application of two deployments, for the test of an application's autoscaling policy: Ray takes
one only from a configuration, which names its applications by import path.
"""

from __future__ import annotations

from typing import Any

from ray import serve
from ray.serve.config import AutoscalingConfig

SIZES = AutoscalingConfig(
    min_replicas=1,
    max_replicas=2,
    upscale_delay_s=0,
    downscale_delay_s=0,
    # Replicas report every second.
    metrics_interval_s=1,
    look_back_period_s=5,
)


@serve.deployment(
    ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=0, autoscaling_config=SIZES
)
class Engine:
    """Prompts of nearly half a second each, as many with each report as it was told."""

    def __init__(self) -> None:
        from llmd_sched.ray.meter import ReplicaMeter

        self.meter = ReplicaMeter("qwen3-32b_h100_tp2", slo={"ttft_ms": 1000})
        self.work = self.asked = 0

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Ray asks every second."""
        for _ in range(self.work):
            self.asked += 1
            self.meter.cancel(self.meter.begin([self.asked, *range(8_000)]))
        return self.meter.stats()

    def busy(self, work: int) -> None:
        """How much it is asked from now on."""
        self.work = work


@serve.deployment(
    ray_actor_options={"num_cpus": 0}, graceful_shutdown_timeout_s=0, autoscaling_config=SIZES
)
class Front:
    """Has nothing to do, and reports nothing."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    async def busy(self, work: int) -> None:
        """Passes it on."""
        await self.engine.busy.remote(work)


app = Front.bind(Engine.bind())
