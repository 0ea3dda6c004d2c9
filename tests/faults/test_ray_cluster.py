"""A Ray cluster of several nodes loses what it can lose, while requests come.

Whatever that is: no request hangs, nothing stays booked, nobody spins, and only what a dead replica
had taken fails.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray_load import (
    HANGS_S,
    Load,
    LoadedCluster,
    addresses,
    assert_only_accepted_ones_failed,
    assert_settles,
    brain_of,
    inflight,
    text_prompt_of,
    until,
)

pytestmark = pytest.mark.timeout(150)
REPLICAS = 4
ONGOING = 4
# A router that spins picks hundreds of times a second, and does nothing else.
WATCHED_S = 3.0
WAITING = 8
BUSY_SHARE = 0.4
APP = "engine"


@pytest.fixture(scope="module")
def loaded(cluster: LoadedCluster) -> Iterator[LoadedCluster]:
    """The cluster with an application of engines that only take their time."""
    deploy_engine(cluster.serve)
    yield cluster
    cluster.serve.delete(APP)


def deploy_engine(serve: Any, **kwargs: Any) -> Any:
    from ray.serve.config import RequestRouterConfig

    # In here, so that it travels by value: workers do not import the tests.
    class Engine:
        async def __call__(self, request: dict[str, Any]) -> str:
            if gate := request.get("gate"):
                await gate.wait.remote()
            await asyncio.sleep(request.get("takes_s", 0.0))
            return serve.get_replica_context().replica_id.to_full_id_str()

        async def where(self, _request: dict[str, Any]) -> tuple[str, int, str]:
            import ray

            replica_id = serve.get_replica_context().replica_id.to_full_id_str()
            return replica_id, os.getpid(), ray.get_runtime_context().get_node_id()

    deployment = serve.deployment(
        Engine,
        name="Engine",
        num_replicas=REPLICAS,
        max_ongoing_requests=ONGOING,
        ray_actor_options={"num_cpus": 0, "resources": {"engines": 1}},
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(
            request_router_class="llmd_sched.ray:LlmdRouter", request_router_kwargs=kwargs
        ),
    )
    return serve.run(deployment.bind(), name=APP, route_prefix=None)


def replicas_of(handle: Any) -> dict[str, tuple[int, str]]:
    """Process and node of every replica, once as many answer as there should be."""
    found: dict[str, tuple[int, str]] = {}
    turn = 0
    while len(found) < REPLICAS or found.keys() != addresses(APP):
        turn += 1
        # Nothing in common, so that load spreads them.
        prompts = [text_prompt_of(1_000 * turn + at, 0) for at in range(2 * REPLICAS)]
        asked = [handle.where.remote(it) for it in prompts]
        found |= {it[0]: it[1:] for it in (response.result() for response in asked)}
        found = {replica: at for replica, at in found.items() if replica in addresses(APP)}
    return found


def test_a_replica_is_killed_under_load(loaded: LoadedCluster) -> None:
    handle = loaded.serve.get_app_handle(APP)
    victim, (pid, _) = sorted(replicas_of(handle).items())[0]
    with Load(handle) as load:
        load.goes_on()
        os.kill(pid, signal.SIGKILL)
        until(lambda: victim not in addresses(APP))
        load.goes_on()
        until(lambda: len(addresses(APP)) == REPLICAS)
        load.goes_on()
    assert_only_accepted_ones_failed(load)
    assert_settles(APP)


def test_a_node_is_lost_under_load(loaded: LoadedCluster) -> None:
    handle = loaded.serve.get_app_handle(APP)
    by_node: dict[str, set[str]] = {}
    for replica, (_, node) in replicas_of(handle).items():
        by_node.setdefault(node, set()).add(replica)
    lost = next(it for it in loaded.workers if it.node_id in by_node)
    loaded.workers.remove(lost)
    with Load(handle) as load:
        load.goes_on()
        loaded.cluster.remove_node(lost, allow_graceful=False)
        until(lambda: not by_node[lost.node_id] & addresses(APP))
        load.goes_on()
        until(lambda: len(addresses(APP)) == REPLICAS)
        load.goes_on()
    assert_only_accepted_ones_failed(load)
    assert_settles(APP)
    loaded.add_worker()


def deploy_caller(serve: Any) -> Any:
    """A router in a process of its own, on the head."""

    class Caller:
        def __init__(self) -> None:
            self.handle = serve.get_deployment_handle("Engine", APP)
            self.held: list[Any] = []

        async def hold(self, requests: list[dict[str, Any]]) -> int:
            self.held += [self.handle.remote(request) for request in requests]
            return os.getpid()

        async def results(self) -> list[str]:
            return [await it for it in self.held]

        def counters(self) -> Any:
            from llmd_sched.ray import counters

            (ours,) = counters().values()
            return ours

    deployment = serve.deployment(
        Caller,
        name="Caller",
        ray_actor_options={"num_cpus": 0, "resources": {"callers": 1}},
        graceful_shutdown_timeout_s=0,
    )
    return serve.run(deployment.bind(), name="caller", route_prefix=None)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has had, of its threads and in the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_a_full_fleet_is_asked_with_pauses_and_serves_all(loaded: LoadedCluster, gate: Any) -> None:
    handle = loaded.serve.get_app_handle(APP)
    assert len(replicas_of(handle)) == REPLICAS
    held = [handle.remote(text_prompt_of(at, 0, gate=gate)) for at in range(REPLICAS * ONGOING)]
    until(lambda: inflight(APP) == len(held))
    until(lambda: brain_of(APP).counters()["waiting"] == 0)
    caller = deploy_caller(loaded.serve)
    pid = caller.hold.remote([text_prompt_of(at, 1) for at in range(WAITING)]).result()
    until(lambda: caller.counters.remote().result()["waiting"] == WAITING)
    began_s, picks = time.monotonic(), caller.counters.remote().result()["picks"]
    cpu_before_s = cpu_s(pid)
    elapsed_s = 0.0
    while elapsed_s < WATCHED_S:
        time.sleep(0.1)
        elapsed_s = time.monotonic() - began_s
    used_s = cpu_s(pid) - cpu_before_s
    seen = caller.counters.remote().result()
    # Ray's own pauses: 25 ms, doubled up to half a second.
    assert seen["picks"] - picks <= WAITING * (8 + 3 * elapsed_s)
    # The whole process, most of it what Ray does for each attempt. One that spins has a core.
    assert used_s <= BUSY_SHARE * elapsed_s, (used_s, elapsed_s, seen["picks"] - picks)
    gate.open.remote()
    assert all(it.result(timeout_s=HANGS_S) for it in held)
    assert len(caller.results.remote().result(timeout_s=HANGS_S)) == WAITING
    assert_settles(APP)
    until(lambda: caller.counters.remote().result()["booked"] == 0)
    loaded.serve.delete("caller")


def test_a_router_is_killed_with_requests_in_flight(loaded: LoadedCluster, gate: Any) -> None:
    handle = loaded.serve.get_app_handle(APP)
    assert handle.remote(text_prompt_of(0, 0)).result()
    caller = deploy_caller(loaded.serve)
    pid = caller.hold.remote([text_prompt_of(at, 0, gate=gate) for at in range(6)]).result()
    # Told by its router to this one.
    until(lambda: inflight(APP) == 6)
    with Load(handle) as load:
        load.goes_on()
        os.kill(pid, signal.SIGKILL)
        gate.open.remote()
        load.goes_on()
    assert load.failed == []
    assert_settles(APP)
    loaded.serve.delete("caller")


def test_a_deployment_is_made_anew_with_other_keywords_under_load(loaded: LoadedCluster) -> None:
    handle = loaded.serve.get_app_handle(APP)
    before = set(replicas_of(handle))
    settings = brain_of(APP).settings
    with Load(handle) as load:
        load.goes_on()
        deploy_engine(loaded.serve, policy="lmetric")
        until(lambda: not before & addresses(APP) and len(addresses(APP)) == REPLICAS)
        load.goes_on()
    # Ray keeps the live router, whose replicas are the new ones.
    assert brain_of(APP).settings is settings
    assert_settles(APP)
    from ray.exceptions import RayError

    assert all(isinstance(failed, RayError) for failed in load.failed), load.failed
