"""What a request costs in a gateway: `make bench-gateway`.

Ours with its default policy, nginx, and the LLM routers that ship as wheels, in front of the same
engines, which answer at once. Each gateway has one core to itself, engines and clients have
another; they take turns, and what is compared is CPU time (user and system, `/proc`) a request or
an event. Medians of rounds; ratios are of the same round. Prints a line BENCH {json} last.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ENGINES = 4
CONNECTIONS = 32
STREAMS = 64
EVENTS = 100
EVENT_INTERVAL_US = 10_000
PREFIXES = 64
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))


@dataclass
class Gateway:
    """One that is running."""

    name: str
    process: subprocess.Popen[str]
    address: str

    def cpu_s(self) -> float:
        """CPU time of the process and its children, to a tick (10 ms)."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        spent = 0
        for pid in [self.process.pid, *map(int, children.split())]:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            spent += int(fields[11]) + int(fields[12])
        return spent * TICK_S

    def rss_mb(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def on_core(core: int) -> Callable[[], None]:
    return lambda: os.sched_setaffinity(0, {core})


@contextmanager
def running(
    command: list[str], core: int, log: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A process on a core, ended at the end."""
    with ExitStack() as stack:
        said = stack.enter_context(log.open("w")) if log else subprocess.PIPE
        process = subprocess.Popen(
            command,
            stdout=said,
            stderr=subprocess.STDOUT if log else None,
            text=True,
            preexec_fn=on_core(core),
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def answers(address: str) -> bool:
    body = b'{"model":"m","prompt":"x","max_tokens":1}'
    request = urllib.request.Request(
        f"http://{address}/v1/completions", body, {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def until_it_answers(gateway: Gateway) -> Gateway:
    for _ in range(300):
        if answers(gateway.address):
            return gateway
        if gateway.process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"{gateway.name} does not answer")


NGINX = """
worker_processes 1; daemon off; pid {home}/pid; error_log {home}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; client_body_buffer_size 1m; keepalive_requests 100000000;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  upstream engines {{ {servers} keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engines; proxy_http_version 1.1;
      proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


class Bench:
    """Engines, gateways, and clients that take turns at them."""

    def __init__(self, tool: str, ours: str, rivals: Path, stack: ExitStack) -> None:
        self.tool, self.stack = tool, stack
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        engines = [tool, "upstream", str(EVENTS), str(EVENT_INTERVAL_US)]
        ports = []
        for _ in range(ENGINES):
            process = stack.enter_context(running(engines, CORES[-1]))
            assert process.stdout is not None
            ports.append(int(process.stdout.readline()))
        self.engines = [f"127.0.0.1:{port}" for port in ports]
        self.idle_mb = 0.0
        self.gateways = [
            self.ours(ours),
            self.nginx(rivals / "debian/usr/sbin/nginx"),
            self.rival(rivals, "vllm_router_rr", "vllm_router.launch_router", "round_robin"),
            self.rival(rivals, "smg_cache_aware", "smg", "cache_aware", "launch"),
            self.rival(rivals, "sglang_cache_aware", "sglang_router.launch_router", "cache_aware"),
        ]

    def start(self, name: str, command: list[str], address: str | None) -> Gateway:
        log = self.folder / f"{name}.log" if address else None
        process = self.stack.enter_context(running(command, CORES[0], log))
        if address is None:
            assert process.stdout is not None
            address = json.loads(process.stdout.readline())["url"].removeprefix("http://")
        return until_it_answers(Gateway(name, process, address))

    def ours(self, binary: str) -> Gateway:
        command = [binary, "serve", "--listen", "127.0.0.1:0", "--threads", "1"]
        for engine in self.engines:
            command += ["--endpoint", f"http://{engine}"]
        gateway = self.start("ours", command, None)
        self.idle_mb = gateway.rss_mb()
        return gateway

    def nginx(self, binary: Path) -> Gateway:
        home, port = self.folder / "nginx", free_port()
        home.mkdir()
        servers = " ".join(f"server {engine};" for engine in self.engines)
        config = home / "nginx.conf"
        config.write_text(NGINX.format(home=home, port=port, servers=servers))
        command = [str(binary), "-c", str(config), "-p", str(home), "-e", str(home / "error.log")]
        return self.start("nginx", command, f"127.0.0.1:{port}")

    def rival(self, rivals: Path, name: str, module: str, policy: str, *command: str) -> Gateway:
        port = free_port()
        options = ["--host", "127.0.0.1", "--port", str(port), "--policy", policy]
        options += ["--prometheus-port", str(free_port())]
        options += ["--worker-urls", *(f"http://{engine}" for engine in self.engines)]
        python = [str(rivals / "bin/python"), "-m", module, *command]
        return self.start(name, python + options, f"127.0.0.1:{port}")

    def load(
        self, address: str, connections: int, requests: int, size: int, kind: str
    ) -> dict[str, float]:
        counts = [str(connections), str(requests), str(size), str(PREFIXES)]
        command = [self.tool, "load", address, *counts, kind]
        out = subprocess.run(
            command, capture_output=True, text=True, check=True, preexec_fn=on_core(CORES[-1])
        )
        seen: dict[str, float] = json.loads(out.stdout)
        if seen["errors"]:
            raise SystemExit(f"{address}: {seen}")
        return seen

    def cost_us(self, gateway: Gateway, size: int, requests: int) -> float:
        before = gateway.cpu_s()
        seen = self.load(gateway.address, CONNECTIONS, requests, size, "whole")
        return (gateway.cpu_s() - before) * 1e6 / seen["answers"]

    def event_us(self, gateway: Gateway, requests: int) -> float:
        before = gateway.cpu_s()
        seen = self.load(gateway.address, STREAMS, requests, 200, "stream")
        return (gateway.cpu_s() - before) * 1e6 / seen["events"]


def ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tool", help="the bench's own engines and clients")
    parser.add_argument("ours", help="the llmd-sched binary")
    parser.add_argument("rivals", type=Path, help="folder of benches/rivals/gateways.sh")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with ExitStack() as stack:
        bench = Bench(asked.tool, asked.ours, asked.rivals, stack)
        small, large, events, first = {}, {}, {}, {}
        for table in (small, large, events):
            table.update({gateway.name: [] for gateway in bench.gateways})
        first = {"direct": [], "ours": []}
        for _ in range(asked.rounds):
            for gateway in bench.gateways:
                small[gateway.name].append(bench.cost_us(gateway, 200, 8_000))
                large[gateway.name].append(bench.cost_us(gateway, 32_768, 3_000))
                events[gateway.name].append(bench.event_us(gateway, 256))
            # One after the other: what a gateway adds, and not what a queue does.
            for name, address in (
                ("direct", bench.engines[0]),
                ("ours", bench.gateways[0].address),
            ):
                first[name].append(bench.load(address, 1, 500, 200, "whole")["first_p50_ms"])
        loaded_mb = bench.gateways[0].rss_mb()
    print(f"{'':20} {'200 B':>8} {'32 KB':>8} {'event':>8}   CPU us, medians")
    for name in small:
        row = [statistics.median(table[name]) for table in (small, large, events)]
        print(f"{name:20} {row[0]:8.1f} {row[1]:8.1f} {row[2]:8.1f}")
    # Round by round the cheapest of the LLM routers.
    routers = [name for name in events if name not in ("ours", "nginx")]
    best = [min(events[name][at] for name in routers) for at in range(asked.rounds)]
    added = [ours - direct for ours, direct in zip(first["ours"], first["direct"], strict=True)]
    figures = {
        "cpu_us_200b": statistics.median(small["ours"]),
        "cpu_us_200b_vs_vllm_router_rr": ratio(small["ours"], small["vllm_router_rr"]),
        "cpu_us_200b_vs_smg_cache_aware": ratio(small["ours"], small["smg_cache_aware"]),
        "cpu_us_200b_vs_nginx": ratio(small["ours"], small["nginx"]),
        "cpu_us_32k_vs_smg_cache_aware": ratio(large["ours"], large["smg_cache_aware"]),
        "sse_event_us_vs_best": ratio(events["ours"], best),
        "ttft_added_ms": statistics.median(added),
        "rss_idle_mb": bench.idle_mb,
        "rss_loaded_mb": loaded_mb,
    }
    rounded = {name: round(value, 3) for name, value in figures.items()}
    print("BENCH", json.dumps({"bench": "gateway", "rounds": asked.rounds, **rounded}))


if __name__ == "__main__":
    main()
