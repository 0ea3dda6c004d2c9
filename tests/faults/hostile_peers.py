"""Peers that do what no engine does, on loopback, and the embedded engine that comes after them."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

MODEL = "qwen3"
MIB = 1 << 20
DEADLINE_S = 60.0

# A PUB socket of ZMTP 3.0 (https://rfc.zeromq.org/spec/23/) shakes hands: its greeting and READY.
PUB_HELLO = (
    b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
) + b"\x04\x19\x05READY\x0bSocket-Type\0\0\0\x03PUB"


def until(condition: Callable[[], bool], what: str) -> None:
    """Polls until the condition holds; fails with ``what`` after a minute."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {DEADLINE_S:.0f} s: {what}")
        time.sleep(0.005)


class Peer:
    """Listens on one port, says the same to each connection, and counts them."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self.connections = 0
        self._talk = talk
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._talking: socket.socket | None = None
        self._lock = threading.Lock()
        self._is_closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._is_closed:
                    connection.close()
                    return
                self._talking = connection
            # The other side may hang up in the middle: that is what it should do.
            with connection, contextlib.suppress(OSError):
                self._talk(connection)
            self.connections += 1

    def __enter__(self) -> Peer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._is_closed = True
            for it in (self._listener, self._talking):
                # Closing alone would not wake a thread that waits in accept or recv.
                with contextlib.suppress(OSError):
                    if it:
                        it.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()


def says(script: bytes, *, flood: bytes = b"", then_half_closes: bool = True) -> Peer:
    """A peer that sends ``script``, then up to 64 MiB of ``flood``, and listens to the end."""

    def talk(connection: socket.socket) -> None:
        connection.sendall(script)
        for _ in range(64 * MIB // len(flood) if flood else 0):
            connection.sendall(flood)
        if then_half_closes:
            connection.shutdown(socket.SHUT_WR)
        # Closing with unread bytes would reset the connection, and what was sent could be lost.
        while connection.recv(1 << 16):
            pass

    return Peer(talk)


def serves(body: bytes, repeats: int = 1) -> Peer:
    """An HTTP server whose every page is ``body``, ``repeats`` times over."""
    head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body) * repeats}\r\n\r\n"

    def talk(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            more = connection.recv(1 << 16)
            if not more:
                return
            request += more
        connection.sendall(head.encode())
        for _ in range(repeats):
            connection.sendall(body)

    return Peer(talk)


class EmbeddedEngine:
    """``llmd-sched engine`` as a child process, at ports that may be given."""

    def __init__(
        self, *, port: int = 0, kv_port: int = 0, replay_port: int = 0, block_size: int = 16
    ) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "llmd_sched", "engine"),
                *("--model", MODEL, "--port", str(port), "--block-size", str(block_size)),
                *("--kv-blocks", "1000", "--speed", "1000"),
                *("--kv-events-endpoint", f"tcp://127.0.0.1:{kv_port}"),
                *("--kv-replay-endpoint", f"tcp://127.0.0.1:{replay_port}"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(f"the engine exited with {self.process.wait()} before it listened")
        self.url = str(json.loads(line)["url"])

    def complete(self, tokens: list[int]) -> None:
        """One output token for this prompt."""
        body: dict[str, Any] = {"model": MODEL, "prompt": tokens, "max_tokens": 1}
        request = urllib.request.Request(
            f"{self.url}/v1/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
            answer.read()

    def __enter__(self) -> EmbeddedEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout:
            self.process.stdout.close()


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) << 10
    raise KeyError(field)


@contextlib.contextmanager
def memory_grows_by_at_most(limit_bytes: int) -> Iterator[None]:
    """Fails where the peak of this process's resident memory rises further within the block."""
    # Lets the peak start over from what is resident now (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    before = _status_bytes("VmRSS:")
    yield
    growth = _status_bytes("VmHWM:") - before
    assert growth <= limit_bytes, f"memory grew by {growth / MIB:.1f} MiB at its peak"
