"""The gateway as a process of its own, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HUNG_S = 60.0


@dataclass(frozen=True)
class ServedGateway:
    """A running ``llmd-sched serve``."""

    process: subprocess.Popen[str]
    url: str
    admin: str

    def post(
        self, path: str, body: object, headers: Mapping[str, str] | None = None
    ) -> tuple[dict[str, str], bytes]:
        """The head and the body of an answer, read to its end."""
        data = json.dumps(body).encode()
        headers = {"content-type": "application/json", **(headers or {})}
        request = urllib.request.Request(self.url + path, data, headers)
        with urllib.request.urlopen(request, timeout=HUNG_S) as reply:
            return dict(reply.headers), reply.read()

    def live(self) -> Any:
        """What its page shows."""
        with urllib.request.urlopen(self.admin + "/live", timeout=HUNG_S) as reply:
            return json.load(reply)

    def wait_for_states(self, *states: str) -> None:
        """Until the engines, by address, are in these states."""
        deadline = time.monotonic() + HUNG_S
        while (now := [it["state"] for it in self.live()["endpoints"]]) != list(states):
            assert time.monotonic() < deadline, now
            time.sleep(0.02)


@contextmanager
def served_gateway(folder: Path, config: Mapping[str, Any]) -> Iterator[ServedGateway]:
    """A gateway with an admin API and these settings; killed at the end."""
    defaults = {"listen": "127.0.0.1:0", "threads": 2, "admin": {"listen": "127.0.0.1:0"}}
    file = folder / "gateway.json"
    file.write_text(json.dumps({**defaults, **config}))
    command = [sys.executable, "-m", "llmd_sched", "serve", "--config", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = json.loads(process.stdout.readline())
            yield ServedGateway(process, said["url"], said["admin"])
        finally:
            process.kill()
