"""What the tests of the Python API share.

LLMD_REQUIRE is a comma-separated list of what must not be missing: with `ray` in it, an absent Ray
fails the tests that want one instead of skipping them; so does `browser` an absent Chromium.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from browsing import Page, chromium
from llmd_sched import Router

OBJECT_STORE_BYTES = 128 << 20


@pytest.fixture
def router() -> Iterator[Router]:
    """A router with two endpoints without events, ``http://a`` and ``http://b``."""
    with Router(seed=1) as router:
        router.add_endpoint("http://a", model="m")
        router.add_endpoint("http://b", model="m")
        yield router


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A page in a browser, which all tests share."""
    with ExitStack() as stack:
        try:
            browser = stack.enter_context(chromium(tmp_path_factory.mktemp("chromium")))
        except FileNotFoundError as absent:
            if "browser" in os.environ.get("LLMD_REQUIRE", "").split(","):
                pytest.fail(f"LLMD_REQUIRE names browser, but there is {absent}", pytrace=False)
            pytest.skip(str(absent))
        yield Page(browser)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a small Ray cluster, which this process is connected to."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as absent:
        if "ray" in os.environ.get("LLMD_REQUIRE", "").split(","):
            pytest.fail(f"LLMD_REQUIRE names ray, but there is none: {absent}", pytrace=False)
        pytest.skip(f"no Ray: {absent}")
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


@pytest.fixture(scope="module")
def serve(ray_cluster: str) -> Iterator[Any]:
    """Ray Serve on the session's cluster."""
    os.environ.setdefault("RAY_SERVE_HAPROXY_METRICS_PORT", "0")
    from ray import serve

    serve.start(proxy_location="Disabled")
    yield serve
    serve.shutdown()


@pytest.fixture
def gate(serve: Any) -> Any:
    """An actor that lets go those who wait at it."""
    import ray

    # In here, so that it travels by value: workers do not import the tests.
    class Gate:
        def __init__(self) -> None:
            self.opened = asyncio.Event()

        async def wait(self) -> None:
            await self.opened.wait()

        def open(self) -> None:
            self.opened.set()

    return ray.remote(num_cpus=0)(Gate).remote()
