"""A Ray cluster of several nodes loses what it can lose, while requests come.

Whatever that is: no request hangs, nothing stays booked, nobody spins, and only what a dead replica
had taken fails. In this process the cluster is the only one; the session's of `tests/python` cannot
be beside it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(150)
OBJECT_STORE_BYTES = 100 << 20
REPLICAS = 4
ONGOING = 4
# Nothing is booked any more so long after the last request had its answer.
SETTLED_S = 5.0
# Longer than any answer takes: a request that has none by then hangs.
HANGS_S = 90.0
CALLERS = 6
# A router that spins picks hundreds of times a second.
WATCHED_S = 3.0


class LoadedCluster:
    """A head and two workers, on which replicas run."""

    def __init__(self, cluster: Any, serve: Any) -> None:
        self.cluster = cluster
        self.serve = serve
        self.handle: Any = None
        self.workers: list[Any] = []

    def add_worker(self) -> None:
        """A node for replicas."""
        self.workers.append(
            self.cluster.add_node(
                num_cpus=1, resources={"engines": 100}, object_store_memory=OBJECT_STORE_BYTES
            )
        )


@pytest.fixture(scope="module")
def loaded() -> Iterator[LoadedCluster]:
    """A cluster of three nodes with Ray Serve."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_HAPROXY_METRICS_PORT", "0")
    try:
        import ray
        from ray import serve
        from ray.cluster_utils import Cluster
    except ImportError as absent:
        if "ray" in os.environ.get("LLMD_REQUIRE", "").split(","):
            pytest.fail(f"LLMD_REQUIRE names ray, but there is none: {absent}", pytrace=False)
        pytest.skip(f"no Ray: {absent}")
    if ray.is_initialized():
        pytest.skip("this process has a Ray cluster: run tests/faults by itself")
    head = {
        "num_cpus": 2,
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
        "resources": {"callers": 100},
    }
    loaded = LoadedCluster(Cluster(initialize_head=True, head_node_args=head), serve)
    loaded.add_worker()
    loaded.add_worker()
    ray.init(address=loaded.cluster.address, log_to_driver=False)
    serve.start(proxy_location="Disabled")
    loaded.handle = deploy_engine(serve)
    yield loaded
    serve.shutdown()
    ray.shutdown()
    loaded.cluster.shutdown()


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
    return serve.run(deployment.bind(), name="engine", route_prefix=None)


@pytest.fixture
def gate(loaded: LoadedCluster) -> Any:
    """An actor on the head that lets go those who wait at it."""
    import ray

    class Gate:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def wait(self) -> None:
            await self.opened.wait()

        def open(self) -> None:
            self.opened.set()

    return ray.remote(num_cpus=0, resources={"callers": 1})(Gate).remote()


class Load:
    """Clients that send one request after the other, each its own conversation."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(at,)) for at in range(CALLERS)]
        self.answered = 0
        self.failed: list[Exception] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _send(self, caller: int) -> None:
        turn = 0
        while not self._ends.is_set():
            turn += 1
            try:
                request = prompt_of(caller, turn, takes_s=0.02)
                self._handle.remote(request).result(timeout_s=HANGS_S)
            except Exception as failed:
                with self._lock:
                    self.failed.append(failed)
            else:
                with self._lock:
                    self.answered += 1

    def goes_on(self, requests: int = 60) -> None:
        """Waits until so many more were answered."""
        goal = self.answered + requests
        until(lambda: self.answered >= goal)


def prompt_of(caller: int, turn: int, **options: Any) -> dict[str, Any]:
    return {"prompt": f"caller {caller} " + "x" * 4_000 + f" turn {turn}", **options}


def until(holds: Callable[[], bool]) -> None:
    """Waits for what happens in its own time; the test's time limit bounds it."""
    while not holds():
        time.sleep(0.01)


def brain_of() -> Any:
    from llmd_sched.ray._deployments import all_deployments

    until(lambda: any("engine" in key for key in all_deployments()))
    (found,) = [it for key, it in all_deployments().items() if "engine" in key]
    return found


def addresses() -> set[str]:
    return {it.address for it in brain_of().router.endpoints()}


def inflight() -> int:
    """Requests that this router and those that it hears have in flight."""
    found: int = sum(it.inflight_requests for it in brain_of().router.endpoints())
    return found


def assert_settles() -> None:
    """Nothing is booked, here or in the ledger, soon after the last answer."""

    def is_settled() -> bool:
        return brain_of().counters()["booked"] == 0 and inflight() == 0

    until_s = time.monotonic() + SETTLED_S
    while not is_settled() and time.monotonic() < until_s:
        time.sleep(0.01)
    seen = brain_of().counters()
    assert is_settled(), (seen, brain_of().router.endpoints())
    assert (seen["fallbacks"], seen["last_error"]) == (0, None)


def replicas_of(handle: Any) -> dict[str, tuple[int, str]]:
    """Process and node of every replica, once as many answer as there should be."""
    found: dict[str, tuple[int, str]] = {}
    turn = 0
    while len(found) < REPLICAS or found.keys() != addresses():
        turn += 1
        # Nothing in common, so that load spreads them.
        prompts = [prompt_of(1_000 * turn + at, 0) for at in range(2 * REPLICAS)]
        asked = [handle.where.remote(it) for it in prompts]
        found |= {it[0]: it[1:] for it in (response.result() for response in asked)}
        found = {replica: at for replica, at in found.items() if replica in addresses()}
    return found


def assert_only_accepted_ones_failed(load: Load) -> None:
    from ray.exceptions import RayError

    assert all(isinstance(failed, RayError) for failed in load.failed), load.failed
    # A caller has one at a time; each loses at most the one that it had at the dead.
    assert len(load.failed) <= CALLERS, load.failed


def test_a_replica_is_killed_under_load(loaded: LoadedCluster) -> None:
    handle = loaded.handle
    victim, (pid, _) = sorted(replicas_of(handle).items())[0]
    with Load(handle) as load:
        load.goes_on()
        os.kill(pid, signal.SIGKILL)
        until(lambda: victim not in addresses())
        load.goes_on()
        until(lambda: len(addresses()) == REPLICAS)
        load.goes_on()
    assert_only_accepted_ones_failed(load)
    assert_settles()


def test_a_node_is_lost_under_load(loaded: LoadedCluster) -> None:
    handle = loaded.handle
    by_node: dict[str, set[str]] = {}
    for replica, (_, node) in replicas_of(handle).items():
        by_node.setdefault(node, set()).add(replica)
    lost = next(it for it in loaded.workers if it.node_id in by_node)
    loaded.workers.remove(lost)
    with Load(handle) as load:
        load.goes_on()
        loaded.cluster.remove_node(lost, allow_graceful=False)
        until(lambda: not by_node[lost.node_id] & addresses())
        load.goes_on()
        until(lambda: len(addresses()) == REPLICAS)
        load.goes_on()
    assert_only_accepted_ones_failed(load)
    assert_settles()
    loaded.add_worker()


def test_a_full_fleet_is_asked_with_pauses_and_serves_all(loaded: LoadedCluster, gate: Any) -> None:
    handle = loaded.handle
    assert len(replicas_of(handle)) == REPLICAS
    held = [handle.remote(prompt_of(at, 0, gate=gate)) for at in range(REPLICAS * ONGOING)]
    until(lambda: inflight() == len(held))
    until(lambda: brain_of().counters()["waiting"] == 0)
    began_s, picks = time.monotonic(), brain_of().counters()["picks"]
    waiting = [handle.remote(prompt_of(at, 1)) for at in range(8)]
    # Ray's own pauses: 25 ms, doubled up to half a second.
    elapsed_s = 0.0
    while elapsed_s < WATCHED_S:
        time.sleep(0.1)
        elapsed_s = time.monotonic() - began_s
    assert brain_of().counters()["picks"] - picks <= len(waiting) * (8 + 3 * elapsed_s)
    gate.open.remote()
    assert all(it.result(timeout_s=HANGS_S) for it in [*held, *waiting])
    assert_settles()


def test_a_router_is_killed_with_requests_in_flight(loaded: LoadedCluster, gate: Any) -> None:
    serve = loaded.serve
    handle = loaded.handle
    assert handle.remote(prompt_of(0, 0)).result()

    class Caller:
        def __init__(self) -> None:
            self.handle = serve.get_deployment_handle("Engine", "engine")
            self.held: list[Any] = []

        async def hold(self, requests: list[dict[str, Any]]) -> int:
            self.held += [self.handle.remote(request) for request in requests]
            return os.getpid()

    deployment = serve.deployment(
        Caller,
        name="Caller",
        ray_actor_options={"num_cpus": 0, "resources": {"callers": 1}},
        graceful_shutdown_timeout_s=0,
    )
    caller = serve.run(deployment.bind(), name="caller", route_prefix=None)
    pid = caller.hold.remote([prompt_of(at, 0, gate=gate) for at in range(6)]).result()
    # Told by its router to this one.
    until(lambda: inflight() == 6)
    with Load(handle) as load:
        load.goes_on()
        os.kill(pid, signal.SIGKILL)
        gate.open.remote()
        load.goes_on()
    assert load.failed == []
    assert_settles()
    serve.delete("caller")


def test_a_deployment_is_made_anew_with_other_keywords_under_load(loaded: LoadedCluster) -> None:
    handle = loaded.handle
    before = set(replicas_of(handle))
    settings = brain_of().settings
    with Load(handle) as load:
        load.goes_on()
        deploy_engine(loaded.serve, policy="lmetric")
        until(lambda: not before & addresses() and len(addresses()) == REPLICAS)
        load.goes_on()
    # Ray keeps the live router, whose replicas are the new ones.
    assert brain_of().settings is settings
    assert_settles()
    from ray.exceptions import RayError

    assert all(isinstance(failed, RayError) for failed in load.failed), load.failed
