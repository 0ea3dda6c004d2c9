"""The autoscaling policy: on made-up contexts, and once inside a real Ray Serve."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llmd_sched import ConfigError, SloScaler
from llmd_sched.ray.autoscale import SloPolicy
from llmd_sched.ray.meter import ReplicaMeter

PROFILE = "qwen3-32b_h100_tp2"
SLO = {"ttft_ms": 1000, "tpot_ms": 60}


@dataclass(frozen=True)
class Replica:
    name: str

    def to_full_id_str(self) -> str:
        return self.name


class Deployment:
    """A deployment whose replicas all report, and that does as it is told."""

    def __init__(self, name: str = "engine") -> None:
        self.name = name
        self.now_s = 1e9
        self.target = 1
        self.queued = 0.0
        self.meters: dict[str, ReplicaMeter] = {}
        self.reported_s = self.now_s
        self.state: dict[str, Any] = {}

    def context(self) -> Any:
        while len(self.meters) < self.target:
            meter = ReplicaMeter(PROFILE, slo=SLO, kv_blocks=16_000)
            self.meters[f"replica-{len(self.meters)}"] = meter
        while len(self.meters) > self.target:
            self.meters.popitem()
        raw: dict[str, dict[Any, Any]] = {"ongoing": {}}
        for name, meter in self.meters.items():
            replica = Replica(name)
            for key, value in meter.stats().items():
                point = SimpleNamespace(timestamp=self.reported_s, value=value)
                raw.setdefault(key, {})[replica] = [point]
        return SimpleNamespace(
            deployment_id=self.name,
            current_time=self.now_s,
            current_num_replicas=self.target,
            target_num_replicas=self.target,
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=6,
            total_queued_requests=self.queued,
            raw_metrics=raw,
            policy_state=self.state,
        )

    def serve(self, requests: int, tokens: int) -> None:
        """So many requests come, shared out over the replicas."""
        for number in range(requests):
            meter = list(self.meters.values())[number % len(self.meters)]
            # Prompts that nobody has seen.
            start = int(self.now_s - 1e9) * 1_000 + number + 10_000
            prompt = [start, *range(tokens - 1)]
            # Ended at once without a token: answers that took no time would be learned from.
            meter.cancel(meter.begin(prompt, expected_output_tokens=100))

    def tick(self, policy: SloPolicy, seconds: float = 10) -> int:
        self.now_s += seconds
        self.reported_s = self.now_s
        self.target, self.state = policy(self.context())
        return self.target


def play(deployment: Deployment, policy: SloPolicy, looks: int, per_look: int) -> list[int]:
    targets = []
    for _ in range(looks):
        deployment.context()
        deployment.serve(per_look, tokens=8_000)
        targets.append(deployment.tick(policy))
    return targets


def test_replicas_follow_the_work_up_and_down() -> None:
    deployment, policy = Deployment(), SloPolicy(startup_s=30)
    # Each prompt is 0.45 s of an engine: 45 of them in ten seconds are the work of two.
    busy = play(deployment, policy, 12, per_look=45)
    assert 3 <= busy[-1] <= 4, busy
    assert deployment.state["bound"] in ("ttft", "tpot")
    idle = play(deployment, policy, 50, per_look=0)
    assert idle[-1] == 1, idle
    assert deployment.state == {**deployment.state, "desired": 1, "is_informed": True}


def test_ray_may_ask_as_often_as_it_likes() -> None:
    deployment, policy = Deployment(), SloPolicy()
    play(deployment, policy, 3, per_look=45)
    before = deployment.state
    for _ in range(50):
        deployment.now_s += 0.1
        desired, state = policy(deployment.context())
        assert (desired, state) == (deployment.target, before)


def test_silence_keeps_the_size() -> None:
    deployment, policy = Deployment(), SloPolicy()
    target = play(deployment, policy, 12, per_look=45)[-1]
    for _ in range(200):
        deployment.now_s += 10
        # The same old reports.
        desired, state = policy(deployment.context())
        assert (desired, state["is_informed"]) == (target, False)


def test_requests_that_ray_holds_back_count() -> None:
    work = {}
    for queued in (0.0, 120.0):
        deployment, policy = Deployment(), SloPolicy()
        deployment.queued = queued
        play(deployment, policy, 2, per_look=10)
        work[queued] = deployment.state["work"]
    # 120 requests of nearly half a second, to be gone within a minute.
    assert 0.8 < work[120.0] - work[0.0] < 1.1


def test_what_fails_keeps_the_size_and_is_told() -> None:
    desired, state = SloPolicy()(SimpleNamespace(deployment_id="d", target_num_replicas=3))
    assert desired == 3
    assert "current_time" in state["error"]


def test_each_deployment_of_an_application_is_sized_apart() -> None:
    busy, idle, policy = Deployment("busy"), Deployment("idle"), SloPolicy()
    for _ in range(12):
        for it, requests in ((busy, 45), (idle, 0)):
            it.context()
            it.serve(requests, tokens=8_000)
            it.now_s += 10
            it.reported_s = it.now_s
        desired, states = policy({it.name: it.context() for it in (busy, idle)})
        busy.target, idle.target = desired["busy"], desired["idle"]
    assert busy.target >= 3
    assert idle.target == 1
    assert states["idle"]["bound"] == "idle"


def test_keywords_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_replicas is the autoscaling_config's"):
        SloPolicy(max_replicas=3)
    with pytest.raises(ConfigError, match="attainment = 2"):
        SloPolicy(attainment=2)
    with pytest.raises(ConfigError, match="unknown field `speed`"):
        SloPolicy(speed=1)
    scaler = SloScaler()
    with pytest.raises(ConfigError, match="demand"):
        scaler.read(0.0, "r", {"requests": -1.0})
    assert scaler.config()["max_replicas"] == 8


def until(holds: Callable[[], bool]) -> None:
    """Waits for what Ray does in its own time; the test's time limit bounds it."""
    while not holds():
        time.sleep(0.05)


@pytest.mark.timeout(180)
def test_a_deployment_of_a_real_ray_serve_grows_and_shrinks(serve: Any) -> None:
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    rule = {"look_s": 1, "window_s": 10, "up_after_s": 1, "down_after_s": 1, "startup_s": 5}

    @serve.deployment(
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=0,
        autoscaling_config=AutoscalingConfig(
            min_replicas=1,
            max_replicas=2,
            upscale_delay_s=0,
            downscale_delay_s=0,
            # Replicas report every second.
            metrics_interval_s=1,
            look_back_period_s=5,
            policy=AutoscalingPolicy(
                policy_function="llmd_sched.ray.autoscale:SloPolicy", policy_kwargs=rule
            ),
        ),
    )
    class Engine:
        def __init__(self) -> None:
            from llmd_sched.ray.meter import ReplicaMeter

            self.meter = ReplicaMeter("qwen3-32b_h100_tp2", slo={"ttft_ms": 1000})
            self.work = self.asked = 0

        def record_autoscaling_stats(self) -> dict[str, float]:
            # Ray asks every second: prompts of nearly half a second each.
            for _ in range(self.work):
                self.asked += 1
                self.meter.cancel(self.meter.begin([self.asked, *range(8_000)]))
            return self.meter.stats()

        def busy(self, work: int) -> None:
            self.work = work

    handle = serve.run(Engine.bind(), name="sized", route_prefix=None)

    def running() -> int:
        deployment = serve.status().applications["sized"].deployments["Engine"]
        return int(deployment.replica_states.get("RUNNING", 0))

    handle.busy.remote(10).result()
    until(lambda: running() == 2)
    for _ in range(40):
        handle.busy.remote(0).result()
    until(lambda: running() == 1)
    serve.delete("sized")


@pytest.mark.timeout(180)
def test_an_application_s_policy_sizes_each_of_its_deployments(serve: Any) -> None:
    from ray.serve.schema import ServeDeploySchema

    rule = {"look_s": 1, "window_s": 10, "up_after_s": 1, "down_after_s": 1, "startup_s": 5}
    # Ray takes such a policy from a configuration alone.
    config = ServeDeploySchema.model_validate(
        {
            "applications": [
                {
                    "name": "sized-app",
                    "route_prefix": "/sized-app",
                    "import_path": "autoscaled_app:app",
                    "runtime_env": {"env_vars": {"PYTHONPATH": str(Path(__file__).parent)}},
                    "autoscaling_policy": {
                        "policy_function": "llmd_sched.ray.autoscale:SloPolicy",
                        "policy_kwargs": rule,
                    },
                }
            ]
        }
    )
    serve.context._get_global_client().deploy_apps(config)

    def running() -> dict[str, int]:
        app = serve.status().applications.get("sized-app")
        deployments = {} if app is None else app.deployments
        return {name: it.replica_states.get("RUNNING", 0) for name, it in deployments.items()}

    until(lambda: running() == {"Engine": 1, "Front": 1})
    handle = serve.get_app_handle("sized-app")
    handle.busy.remote(10).result()
    until(lambda: running() == {"Engine": 2, "Front": 1})
    for _ in range(40):
        handle.busy.remote(0).result()
    until(lambda: running() == {"Engine": 1, "Front": 1})
    serve.delete("sized-app")
