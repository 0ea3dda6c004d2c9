"""Ray Serve behind Ray's own HAProxy, which has to be asked for before Ray is imported.

As a program it serves one application until its standard input ends, says where on the first line,
and answers each further line that it reads with the counters of its ingress router.
"""

from __future__ import annotations

import csv
import json
import os
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PROFILE = "qwen3-32b_h100_tp2"
OBJECT_STORE_BYTES = 128 << 20
# Where all of it listens.
HOST = "127.0.0.1"
OURS = "llmd_sched.ray:LlmdRouter"


def free_ports(count: int) -> list[int]:
    """So many ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [it.getsockname()[1] for it in sockets]
    for it in sockets:
        it.close()
    return ports


def environment(folder: Path) -> dict[str, str]:
    """What Ray has to find in its environment; files go to ``folder``."""
    metrics, stats = free_ports(2)
    return {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_PORT_QUARANTINE_S": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        # A machine that is slow for a moment must not make HAProxy send a request elsewhere than it
        # was told.
        "RAY_SERVE_HAPROXY_INGRESS_REQUEST_ROUTER_TIMEOUT_S": "60",
        "RAY_SERVE_HAPROXY_HEALTH_CHECK_FALL": "1000",
        "RAY_SERVE_HAPROXY_OBSERVE_MARK_DOWN_ENABLED": "0",
    }


def servers_up() -> int:
    """Replicas that HAProxy sends requests to when an ingress router says so."""
    said = Path(os.environ["RAY_SERVE_HAPROXY_SOCKET_PATH"])
    # Ray has a folder for each node in that folder.
    (path,) = said.parent.glob(f"*/{said.name}")
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(str(path))
        admin.sendall(b"show stat\n")
        with admin.makefile() as lines:
            rows = list(csv.DictReader(lines))
    return sum(
        row["# pxname"].endswith("-via-ingress-request-router")
        and row["type"] == "2"  # A server, not what is in front of it or behind.
        and row["bck"] == "0"
        and row["status"].startswith("UP")
        for row in rows
    )


def start() -> tuple[Any, int]:
    """Ray Serve on a small cluster of its own, and the port that HAProxy listens at."""
    import ray
    from ray import serve

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
    )
    (port,) = free_ports(1)
    serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": port})
    return serve, port


def engines(serve: Any, name: str, *, replicas: int, router_class: Any = OURS) -> Any:
    """An application of engines that answer who they are and what they were told."""
    from ray.serve.config import RequestRouterConfig

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for phase in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{phase}.complete"})
            return
        heard = {
            "replica": serve.get_replica_context().replica_id.to_full_id_str(),
            "headers": {name.decode(): it.decode() for name, it in scope["headers"]},
        }
        kind = (b"content-type", b"application/json")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        await send({"type": "http.response.body", "body": json.dumps(heard).encode()})

    @serve.deployment(
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=1_000,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(request_router_class=router_class),
    )
    @serve.ingress()
    class Engine:
        async def __serve_build_asgi_app__(self) -> Any:
            return answer

        def record_replica_metadata(self) -> dict[str, Any]:
            return {"llmd_sched": {"labels": {"engine-profile": PROFILE}}}

    return Engine.bind()


def whereabouts(serve: Any, name: str) -> dict[str, Any]:
    """Where an application's ingress router listens, and the process ids of its replicas."""
    import ray

    client = serve.context._get_global_client()
    # As HAProxy is told; an application is ready before its router is.
    targets: list[Any] = []
    while not targets:
        asked = client._controller.get_target_groups.remote(name, from_proxy_manager=True)
        targets = [it for group in ray.get(asked) for it in group.ingress_request_router_targets]
        time.sleep(0.05)
    (router,) = targets
    details = client.get_serve_details()
    deployments = details["applications"][name]["deployments"]
    pids = {
        deployment: [replica["pid"] for replica in it["replicas"]]
        for deployment, it in deployments.items()
    }
    return {"host": HOST, "port": router.port, "pids": pids}


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="haproxy-"))
    os.environ.update(environment(folder))
    serve, port = start()
    from llmd_sched.ray.ingress import ingress_router

    app = engines(serve, "Engine", replicas=3)
    router = ingress_router(app, base_model_id="base")
    serve.run(app._with_ingress_request_router(router), name="app", route_prefix="/")
    print(json.dumps({"proxy": port, **whereabouts(serve, "app")}), flush=True)
    handle = serve.get_deployment_handle("IngressRouter", "app")
    for _ in sys.stdin:
        print(json.dumps(handle.counters.remote().result()), flush=True)
    serve.shutdown()


if __name__ == "__main__":
    main()
