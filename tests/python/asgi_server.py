"""An application of ASGI behind uvicorn, in a thread, for tests."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn

HUNG_S = 60.0


@dataclass(frozen=True)
class Address:
    """Where something serves."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Address:
        host, port = url.removeprefix("http://").rsplit(":", 1)
        return cls(host, int(port))

    def open(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The head of an answer; its body is still to be read. Closing it closes the connection."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=HUNG_S)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        said = {"content-type": "application/json", "connection": "close", **(headers or {})}
        connection.request(method, path, data, said)
        return connection.getresponse()

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of an answer."""
        with self.open(method, path, body, headers) as answer:
            said = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, said, answer.read()

    def post(self, path: str, body: object, headers: Mapping[str, str] | None = None) -> bytes:
        """The body of an answer that is one."""
        status, _, read = self.ask("POST", path, body, headers)
        assert status == 200, read
        return read


@contextmanager
def served(app: Any, **settings: Any) -> Iterator[Address]:
    """``app`` behind uvicorn; stopped, and its lifespan ended, at the end."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    server = Server(uvicorn.Config(app, log_level="error", **settings))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        assert started.wait(HUNG_S)
        yield Address("127.0.0.1", port)
    finally:
        server.should_exit = True
        thread.join(HUNG_S)
        listener.close()
        assert not thread.is_alive()
