"""Ray Serve with the gateway as a deployment's ingress, as a program: its address on a line.

``python asgi_serve.py CONFIG`` with the configuration as JSON; it ends when its input does.
"""

from __future__ import annotations

import json
import os
import socket
import sys

import ray
from fastapi import FastAPI
from llmd_sched import asgi
from ray import serve

HOST = "127.0.0.1"


def main(config: dict[str, object]) -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=128 << 20,
        log_to_driver=False,
    )
    serve.start(proxy_location="HeadOnly", http_options={"host": HOST, "port": port})
    gateway = asgi.app(config)
    app = FastAPI(lifespan=gateway.lifespan)

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    @serve.ingress(app)
    class Front:
        @app.get("/own")
        def own(self) -> str:
            return "own"

        # Here, since Ray copies the application as it is by the end of the class; and not at "/",
        # since it puts the routes of the class behind.
        app.mount("/gateway", gateway)

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    @serve.ingress(asgi.app(config))
    class Alone:
        pass

    serve.run(Front.bind(), name="front", route_prefix="/llm")
    serve.run(Alone.bind(), name="alone", route_prefix="/alone")
    print(json.dumps({"url": f"http://{HOST}:{port}"}), flush=True)
    sys.stdin.read()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_HAPROXY_METRICS_PORT", "0")
    main(json.loads(sys.argv[1]))
