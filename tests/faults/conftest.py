"""What the fault tests on a Ray cluster share: the cluster, of which a process has one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

import pytest
from ray_load import OBJECT_STORE_BYTES, LoadedCluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[LoadedCluster]:
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
        # That of `tests/python` cannot be beside it.
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
    yield loaded
    serve.shutdown()
    ray.shutdown()
    loaded.cluster.shutdown()


@pytest.fixture
def gate(cluster: LoadedCluster) -> Any:
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
