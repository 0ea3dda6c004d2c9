"""What who runs it sees and does: metrics, the dashboard, and replicas taken out of use."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from llmd_sched import UnknownEndpointError
from llmd_sched.ray import cordon, drain, uncordon
from llmd_sched.ray._metrics import exported_names
from llmd_sched.ray._rendezvous import NAME, NAMESPACE
from ray_brains import brain_of, until

pytestmark = pytest.mark.timeout(180)
DASHBOARD = Path(__file__).parents[2] / "deploy" / "ray_dashboard.json"


def deploy(serve: Any, name: str) -> Any:
    from ray.serve.config import RequestRouterConfig

    # In here, so that it travels by value: workers do not import the tests.
    class Engine:
        async def __call__(self, request: dict[str, Any]) -> str:
            return serve.get_replica_context().replica_id.to_full_id_str()

    deployment = serve.deployment(
        Engine,
        name=name,
        num_replicas=2,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(request_router_class="llmd_sched.ray:LlmdRouter"),
    )
    return serve.run(deployment.bind(), name=name, route_prefix=None)


def where(handle: Any, requests: int = 12) -> set[str]:
    sent = [handle.remote({"prompt": f"{at} " * 500}) for at in range(requests)]
    return {it.result() for it in sent}


def test_a_cordoned_replica_gets_nothing_until_it_is_in_use_again(serve: Any) -> None:
    import ray

    handle = deploy(serve, "cordons")
    replicas = where(handle)
    assert len(replicas) == 2
    out, kept = sorted(replicas)
    until(lambda: brain_of("cordons").counters()["exchange"]["meetings"] > 0)

    cordon(out)
    until(lambda: brain_of("cordons").counters()["cordoned"] == 1)
    assert where(handle) == {kept}
    # Who meets at the next rendezvous knows it still.
    ray.kill(ray.get_actor(NAME, namespace=NAMESPACE))
    failures = lambda: brain_of("cordons").counters()["exchange"]["failures"]  # noqa: E731
    meetings = brain_of("cordons").counters()["exchange"]["meetings"]
    until(lambda: failures() > 0)
    until(lambda: brain_of("cordons").counters()["exchange"]["meetings"] > meetings)
    assert where(handle) == {kept}

    assert drain(kept, timeout_s=60)
    until(lambda: brain_of("cordons").counters()["cordoned"] == 2)
    # Somebody has to.
    assert where(handle) == replicas
    uncordon(out)
    until(lambda: brain_of("cordons").counters()["cordoned"] == 1)
    assert where(handle) == {out}
    uncordon(kept)
    until(lambda: brain_of("cordons").counters()["cordoned"] == 0)
    assert where(handle) == replicas
    assert brain_of("cordons").counters()["fallbacks"] == 0
    serve.delete("cordons")


def test_whom_nobody_routes_to_cannot_be_cordoned(serve: Any) -> None:
    with pytest.raises(UnknownEndpointError, match="no process routes"):
        cordon("SERVE_REPLICA::nowhere#Engine#abc")
    with pytest.raises(ValueError, match="full id"):
        cordon("abc")


def test_rays_exporter_has_every_metric_that_there_is(serve: Any) -> None:
    import ray

    handle = deploy(serve, "metrics")
    where(handle)
    brain_of("metrics").tell_metrics()
    # Counts of what did not happen yet are not there: of what must have, they are.
    wanted = {name for name in exported_names() if not name.endswith("_total")}
    wanted |= {"ray_llmd_picks_total", "ray_llmd_prompt_tokens_total"}
    ports = [node["MetricsExportPort"] for node in ray.nodes()]

    def page() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[0]}/metrics", timeout=10) as answer:
            read: bytes = answer.read()
        return read.decode()

    def shown() -> set[str]:
        return {line.split("{")[0] for line in page().splitlines() if "llmd_" in line}

    until(lambda: wanted <= shown())
    assert shown() - {name for name in shown() if name.startswith("#")} <= exported_names() | {
        name.removesuffix("_total") for name in exported_names()
    }
    serve.delete("metrics")


def test_the_dashboard_asks_for_metrics_that_there_are() -> None:
    asked = set(re.findall(r"\bray_\w+", json.dumps(json.loads(DASHBOARD.read_text()))))
    assert asked
    assert asked <= exported_names()
    assert {name for name in exported_names() if name not in asked} == set()
