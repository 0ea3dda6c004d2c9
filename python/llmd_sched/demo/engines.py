"""Embedded engines as child processes, and the counters that engines keep."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Any

from .workload import FIRST_TOKEN_ID

HIT_TOKENS = "vllm:prefix_cache_hits_total"
QUERY_TOKENS = "vllm:prefix_cache_queries_total"
STOP_TIMEOUT_S = 10.0


class EmbeddedFleet:
    """``count`` embedded engines on ports that the system chose; a context manager."""

    def __init__(
        self, count: int, *, model: str, kv_blocks: int, block_size: int, profile: str, speed: float
    ) -> None:
        self._command = [
            *(sys.executable, "-m", "llmd_sched", "engine", "--port", "0", "--model", model),
            *("--kv-blocks", str(kv_blocks), "--block-size", str(block_size)),
            *("--profile", profile, "--speed", str(speed)),
            *("--kv-events-endpoint", "tcp://127.0.0.1:0"),
            *("--kv-replay-endpoint", "tcp://127.0.0.1:0"),
        ]
        self._count = count
        self._processes: list[subprocess.Popen[str]] = []
        self.urls: list[str] = []

    def __enter__(self) -> EmbeddedFleet:
        self._processes = [
            subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True)
            for _ in range(self._count)
        ]
        self.urls = [_announced_url(process) for process in self._processes]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()


def _announced_url(process: subprocess.Popen[str]) -> str:
    """An engine's first line on stdout says where it listens."""
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise RuntimeError(f"the engine exited with {process.wait()} before it listened")
    return str(json.loads(line)["url"])


def counters(url: str) -> dict[str, float]:
    """Sums of an engine's prefix cache counters over its data-parallel ranks, in tokens."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as response:
        page = response.read().decode()
    totals = {}
    for name in (HIT_TOKENS, QUERY_TOKENS):
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)", page, re.MULTILINE)
        totals[name] = sum(map(float, found))
    return totals


def reset_prefix_cache(url: str, model: str) -> None:
    """Empties an engine's prefix cache, so that each column starts cold.

    vLLM publishes the event of a reset with its next step, so a one-token request follows: without
    it a router would still see the blocks of the column before.
    """
    with urllib.request.urlopen(_post(f"{url}/reset_prefix_cache", None), timeout=30) as answer:
        if json.load(answer).get("success") is False:
            raise RuntimeError(f"{url} did not reset its prefix cache: requests still hold blocks")
    flush = {"model": model, "prompt": [FIRST_TOKEN_ID], "max_tokens": 1}
    urllib.request.urlopen(_post(f"{url}/v1/completions", flush), timeout=30).close()


def _post(url: str, body: dict[str, Any] | None) -> urllib.request.Request:
    data = b"" if body is None else json.dumps(body).encode()
    return urllib.request.Request(url, data, {"Content-Type": "application/json"}, method="POST")
