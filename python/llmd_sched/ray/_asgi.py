"""The HTTP side of an ingress request router, as an application of ASGI.

Apart from the deployment's class, which Ray pickles by value: what is served here must be one for
the process.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from llmd_sched.ray._ingress import Picker

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

JSON = (b"content-type", b"application/json")
ROUTE = "/internal/route"

# What this process serves, once it does.
_served: list[App] = []


class Asgi:
    """What is served. An object, since uvicorn takes a method for an application of ASGI 2."""

    def __init__(self, picker: Picker) -> None:
        self._picker = picker

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] == "lifespan":
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["type"] != "http":
            return
        asked = (scope["method"], scope["path"])
        if asked == ("POST", ROUTE):
            body = await read_body(receive)
            if body is None:
                return
            status, reply = self._picker.answer(body, scope["headers"])
        elif asked == ("GET", "/health"):
            status, reply = 200, b'{"status": "ok"}'
        else:
            status, reply = 404, b'{"detail": "Not Found"}'
        length = (b"content-length", str(len(reply)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [JSON, length]})
        await send({"type": "http.response.body", "body": reply})


async def read_body(receive: Receive) -> bytes | None:
    """The body of a request; None where the client is gone."""
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body"):
        return bytes(message.get("body", b""))
    parts: list[bytes] = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    return None


class Shortcut:
    """A middleware that answers the proxy before Ray makes a request of its own of it.

    That is metadata, a task and a record, which cost several times what the answer does.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or has Ray answer it."""
        is_ours = scope["type"] == "http" and scope["path"] == ROUTE and _served
        await (_served[0] if is_ours else self._app)(scope, receive, send)


def serve_here(app: App) -> App:
    """``app`` is what this process serves from now on."""
    _served[:] = [app]
    return app


def middlewares() -> list[Any]:
    """What Ray asks for where it starts the HTTP server of a replica."""
    from starlette.middleware import Middleware

    return [Middleware(Shortcut)]
