"""The gateway for a long time: what it needs of memory and file descriptors does not grow.

`LLMD_SOAK_S` says for how many seconds; without it, for a moment.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from embedded_engine import embedded_engine

SOAK_S = float(os.environ.get("LLMD_SOAK_S", "0"))
CLIENTS = 32
# Until what is bounded is full: the index holds what the engines' caches hold, and no more.
WARM_UP_REQUESTS = 6_000
LEAST_REQUESTS = 12_000
# Malloc's arenas and pages move about by this much.
MOST_GROWTH_MB = 6.0
ENGINE = ("--speed", "100000", "--kv-blocks", "2000", "--profile", "llama-3.1-8b_h100_tp1")


@contextmanager
def serving(*engines: str) -> Iterator[tuple[int, str]]:
    """A gateway in a process of its own: its process id and address."""
    command = [sys.executable, "-m", "llmd_sched", "serve", "--listen", "127.0.0.1:0"]
    for engine in engines:
        command += ["--endpoint", engine]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


def rss_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def counter(url: str, name: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    (line,) = [it for it in lines if it.startswith(f"{name} ")]
    return float(line.split()[1])


def until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up_s, "it did not happen"
        time.sleep(0.05)


def request(number: int, rng: random.Random) -> tuple[bytes, str]:
    """A request, and what becomes of it."""
    kind = rng.choices(["stream", "whole", "leaves", "wrong"], [60, 20, 10, 10])[0]
    # No two are alike, and all are tokens that the model has.
    prompt = [rng.randrange(50)] * 64 + [*divmod(number, 1_000), *range(rng.randrange(200))]
    asked: dict[str, Any] = {"model": "m", "prompt": prompt, "max_tokens": 8}
    asked["stream"] = kind != "whole"
    if kind == "wrong":
        asked["prompt"] = {"no": "prompt"}
    body = json.dumps(asked).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body, kind


class Load:
    """Clients that ask until they are told to stop."""

    def __init__(self, url: str) -> None:
        self.host, port = url.removeprefix("http://").rsplit(":", 1)
        self.port = int(port)
        self.sent = 0
        self.is_over = False

    async def client(self, number: int) -> None:
        rng = random.Random(number)
        while not self.is_over:
            reader, writer = await asyncio.open_connection(self.host, self.port)
            try:
                await self.converse(reader, writer, rng)
            finally:
                writer.close()

    async def converse(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rng: random.Random
    ) -> None:
        while not self.is_over:
            self.sent += 1
            asked, kind = request(self.sent, rng)
            writer.write(asked)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            status = int(head.split()[1])
            assert status == (400 if kind == "wrong" else 200), head
            if kind == "leaves":
                return
            if b"transfer-encoding: chunked" in head:
                body = await reader.readuntil(b"0\r\n\r\n")
                assert b"data: [DONE]" in body, body
            else:
                await reader.readexactly(int(head.split(b"content-length: ")[1].split()[0]))

    async def run(self, watch: Callable[[int], bool]) -> None:
        clients = [asyncio.create_task(self.client(number)) for number in range(CLIENTS)]
        while watch(self.sent):
            done, _ = await asyncio.wait(clients, timeout=0.2, return_when="FIRST_EXCEPTION")
            for failed in done:
                failed.result()
        self.is_over = True
        await asyncio.gather(*clients)


@pytest.mark.timeout(int(SOAK_S) + 300)
def test_it_needs_no_more_after_a_long_time_than_after_a_short_one() -> None:
    with (
        embedded_engine(*ENGINE) as first,
        embedded_engine(*ENGINE) as second,
        serving(first.url, second.url) as (pid, url),
    ):
        until(lambda: b"m" in urllib.request.urlopen(f"{url}/v1/models", timeout=30).read())
        warm: list[float] = []
        later: list[float] = []
        began_s = time.monotonic()

        def watch(sent: int) -> bool:
            if sent >= WARM_UP_REQUESTS:
                (warm if len(warm) < 5 else later).append(rss_mb(pid))
            return sent < LEAST_REQUESTS or time.monotonic() < began_s + SOAK_S

        load = Load(url)
        asyncio.run(load.run(watch))
        grown_mb = max(later) - max(warm)
        print(f"{load.sent} requests, {max(warm):.1f} MB, {grown_mb:+.1f} MB")
        assert grown_mb <= MOST_GROWTH_MB, (warm, later[-20:])
        # Those who left are gone too, and with them their connections to engines.
        until(lambda: counter(url, "llmd_gateway_in_flight") == 0)
        # Sixteen may be kept for a moment; files, pollers and sockets of the engines' events stay.
        until(lambda: descriptors(pid) <= 64)
        assert counter(url, "llmd_gateway_cut_off_total") == 0
