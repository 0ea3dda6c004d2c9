"""The router in Ray workers whose Python environment lies elsewhere than the driver's."""

from __future__ import annotations

import shutil
import sysconfig
import venv
from pathlib import Path
from typing import Any

import llmd_sched
import pytest

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def other_python(tmp_path: Path) -> Path:
    """The interpreter of an environment with a copy of this package; the rest is this one's."""
    venv.create(tmp_path / "other", symlinks=True, with_pip=False)
    version = sysconfig.get_python_version()
    packages = tmp_path / "other" / "lib" / f"python{version}" / "site-packages"
    shutil.copytree(Path(llmd_sched.__file__).parent, packages / "llmd_sched")
    # Its own comes first; the `.pth` files of the other are not read.
    (packages / "rest.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return tmp_path / "other" / "bin" / "python"


@pytest.mark.parametrize("given_as", ["a name", "a class"])
def test_a_worker_with_another_environment_routes(
    serve: Any, other_python: Path, given_as: str
) -> None:
    from llmd_sched.ray import LlmdRouter
    from ray.serve.config import RequestRouterConfig

    named = "llmd_sched.ray:LlmdRouter"
    config = RequestRouterConfig(
        request_router_class=named if given_as == "a name" else LlmdRouter,
        request_router_kwargs={"policy": "default"},
    )

    # In here, so that they travel by value: workers do not import the tests.
    class Engine:
        async def __call__(self, _request: dict[str, Any]) -> str:
            return serve.get_replica_context().replica_id.unique_id

    class Caller:
        def __init__(self, engine: Any) -> None:
            self.engine = engine

        async def call(self) -> tuple[str, str, dict[str, Any]]:
            import sys

            import llmd_sched.ray

            answer = await self.engine.remote({"prompt": "x" * 500})
            (counters,) = llmd_sched.ray.counters().values()
            return answer, f"{sys.executable} {llmd_sched.__file__}", counters

    options = {"num_cpus": 0}
    engine = serve.deployment(
        Engine,
        name="Engine",
        num_replicas=2,
        ray_actor_options=options,
        graceful_shutdown_timeout_s=0,
        request_router_config=config,
    ).bind()
    caller = serve.deployment(
        Caller,
        name="Caller",
        ray_actor_options={**options, "runtime_env": {"py_executable": str(other_python)}},
        graceful_shutdown_timeout_s=0,
    ).bind(engine)
    handle = serve.run(caller, name="elsewhere", route_prefix=None)
    answer, where, counters = handle.call.remote().result()
    assert answer
    assert where.count(str(other_python.parents[1])) == 2, where
    assert (counters["picks"], counters["fallbacks"], counters["last_error"]) == (1, 0, None)
    serve.delete("elsewhere")
