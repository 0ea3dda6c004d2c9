"""The embedded engine as a process of its own, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class EmbeddedEngine:
    """A running ``llmd-sched engine``."""

    process: subprocess.Popen[str]
    said: dict[str, Any]

    @property
    def url(self) -> str:
        return str(self.said["url"])

    def complete(
        self, tokens: list[int], max_tokens: int = 1, headers: dict[str, str] | None = None
    ) -> None:
        """Has it serve a prompt, and returns when the answer is there."""
        body = {"model": self.said["model"], "prompt": tokens, "max_tokens": max_tokens}
        self.post("/v1/completions", body, headers)

    def post(self, path: str, body: object = None, headers: dict[str, str] | None = None) -> bytes:
        data = b"" if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.url + path, data, {"content-type": "application/json", **(headers or {})}
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            content: bytes = reply.read()
            return content


@contextmanager
def embedded_engine(*arguments: str, port: int = 0) -> Iterator[EmbeddedEngine]:
    """An engine with these arguments; killed at the end."""
    command = [sys.executable, "-m", "llmd_sched", "engine", "--port", str(port), "--model", "m"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield EmbeddedEngine(process, json.loads(process.stdout.readline()))
        finally:
            process.kill()
