"""Several routers of one deployment in a real Ray Serve, each in a process of its own."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
from llmd_sched import ConfigError
from llmd_sched.ray import Settings
from llmd_sched.ray._rendezvous import NAME, NAMESPACE
from ray_brains import brain_of, until

pytestmark = pytest.mark.timeout(180)


def deploy_engine(serve: Any, name: str, **kwargs: Any) -> Any:
    from ray.serve.config import RequestRouterConfig

    # In here, so that it travels by value: workers do not import the tests.
    class Engine:
        async def __call__(self, request: dict[str, Any]) -> str:
            if gate := request.get("gate"):
                await gate.wait.remote()
            return serve.get_replica_context().replica_id.unique_id

    deployment = serve.deployment(
        Engine,
        name="Engine",
        num_replicas=2,
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(
            request_router_class="llmd_sched.ray:LlmdRouter", request_router_kwargs=kwargs
        ),
    )
    return serve.run(deployment.bind(), name=name, route_prefix=None)


def deploy_caller(serve: Any, name: str, engine: str) -> Any:
    """A deployment whose only replica calls the engine's: a router in another process."""

    class Caller:
        def __init__(self) -> None:
            self.handle = serve.get_deployment_handle("Engine", engine)
            self.held: list[Any] = []

        async def call(self, request: dict[str, Any]) -> str:
            return await self.handle.remote(request)

        async def hold(self, requests: list[dict[str, Any]]) -> None:
            self.held += [self.handle.remote(request) for request in requests]

        def brain(self) -> Any:
            from llmd_sched.ray._deployments import all_deployments

            (brain,) = all_deployments().values()
            return brain

        def inflight(self) -> int:
            return sum(it.inflight_requests for it in self.brain().router.endpoints())

        def exchange(self) -> dict[str, Any]:
            return self.brain().counters()["exchange"]

        def counters(self) -> dict[str, Any]:
            return self.brain().counters()

        def pid(self) -> int:
            return os.getpid()

    deployment = serve.deployment(
        Caller,
        name="Caller",
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=0,
    )
    return serve.run(deployment.bind(), name=name, route_prefix=None)


def inflight(name: str) -> int:
    return sum(it.inflight_requests for it in brain_of(name).router.endpoints())


def pid_of(handle: Any) -> int | None:
    """Where a deployment's only replica runs, if it does."""
    from ray.exceptions import RayError

    try:
        found: int = handle.pid.remote().result()
    except RayError:
        return None
    return found


def prompt(text: str, gate: Any = None) -> dict[str, Any]:
    return {"prompt": text * 500, "gate": gate}


def test_routers_count_each_others_load_and_forget_that_of_one_that_died(
    serve: Any, gate: Any
) -> None:
    import ray

    handle = deploy_engine(serve, "exchange")
    caller = deploy_caller(serve, "exchange-caller", "exchange")
    assert handle.remote(prompt("a")).result()
    assert caller.call.remote(prompt("b")).result()
    until(lambda: caller.exchange.remote().result()["connected"] == 1)
    until(lambda: brain_of("exchange").counters()["exchange"]["connected"] == 1)

    caller.hold.remote([prompt(f"c{at}", gate) for at in range(6)]).result()
    until(lambda: inflight("exchange") == 6)
    assert brain_of("exchange").counters()["booked"] == 0
    held = [handle.remote(prompt(f"d{at}", gate)) for at in range(2)]
    until(lambda: caller.inflight.remote().result() == 8)

    # It and the rendezvous die at once: whoever asks next makes another.
    pid = caller.pid.remote().result()
    ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    os.kill(pid, signal.SIGKILL)
    until(lambda: inflight("exchange") == 2)
    until(lambda: pid_of(caller) not in (None, pid))
    caller.hold.remote([prompt("e", gate)]).result()
    until(lambda: inflight("exchange") == 3)

    gate.open.remote()
    assert all(response.result() for response in held)
    until(lambda: inflight("exchange") == 0 and caller.inflight.remote().result() == 0)
    seen = brain_of("exchange").counters()
    assert (seen["fallbacks"], seen["exchange"]["refused"]) == (0, 0)
    assert seen["exchange"]["failures"] >= 1
    serve.delete("exchange-caller")
    serve.delete("exchange")


def test_routers_that_are_to_share_nothing_share_nothing(serve: Any) -> None:
    handle = deploy_engine(serve, "alone", exchange_ms=0)
    assert handle.remote(prompt("a")).result()
    seen = brain_of("alone").counters()["exchange"]
    assert (seen["told"], seen["followers"], seen["followed"]) == (0, 0, 0)
    serve.delete("alone")


@pytest.mark.parametrize("interval_ms", [0.5, 2_000, -1, True, "often", float("nan")])
def test_an_interval_that_cannot_be_is_refused(interval_ms: Any) -> None:
    with pytest.raises(ConfigError, match="exchange_ms"):
        Settings.of({"exchange_ms": interval_ms})
