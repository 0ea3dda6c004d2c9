"""The gateway as an application of ASGI 3: for FastAPI, Starlette, uvicorn and Ray Serve.

    app = FastAPI(lifespan=(gateway := llmd_sched.asgi.app("gateway.toml")).lifespan)
    app.mount("/", gateway)

Requests are answered by the gateway's own thread, in this process; what Python does for each is to
pass on what came. ``docs/gateway.md`` says what is served and what is promised.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from threading import Lock
from typing import Any
from urllib.parse import quote
from weakref import WeakKeyDictionary

from llmd_sched._core import Exchange, Mailbox, MountedGateway
from llmd_sched._errors import EngineError, RouterClosedError
from llmd_sched._types import ConfigSource

__all__ = ["GatewayApp", "MountedGateway", "app"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# What stands in paths as it is.
_IN_PATHS = "/:@!$&'()*+,;=~"


def app(config: ConfigSource) -> GatewayApp:
    """OpenAI's API in front of engines, as an application of ASGI 3.

    ``config`` is that of :class:`llmd_sched.Gateway`. Connections are those of the server that runs
    the application: ``listen``, ``threads``, ``limits.max_connections`` and
    ``timeouts.client_head_ms`` say nothing here, and ``tls`` is refused.

    >>> import asyncio, llmd_sched.asgi
    >>> app = llmd_sched.asgi.app({"endpoints": []})
    >>> async def status_of(path):
    ...     said, asked = [], [{"type": "http.request", "body": b""}]
    ...     async def receive():
    ...         return asked.pop() if asked else await asyncio.Event().wait()
    ...     async def send(message):
    ...         said.append(message)
    ...     scope = {"type": "http", "method": "GET", "path": path, "headers": []}
    ...     await app(scope, receive, send)
    ...     return said[0]["status"]
    >>> asyncio.run(status_of("/health")), asyncio.run(status_of("/nothing"))
    (200, 404)
    >>> app.close()
    """
    return GatewayApp(config)


class GatewayApp:
    """What :func:`app` returns.

    The gateway starts with the application's lifespan, or with its first request where the server
    has none for it: servers tell it to the outermost application alone, so one that this is mounted
    in takes :meth:`lifespan` for its own. It is pickled as its configuration.
    """

    def __init__(self, config: ConfigSource) -> None:
        self._config = config
        self._gateway: MountedGateway | None = None
        # Whether its lifespan has ended: no request starts it anew then.
        self._is_over = False
        self._starting = Lock()
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop] = WeakKeyDictionary()

    def __reduce__(self) -> tuple[type[GatewayApp], tuple[ConfigSource]]:
        return GatewayApp, (self._config,)

    @property
    def gateway(self) -> MountedGateway:
        """The gateway, started where it was not: its engines, its admin API, its settings."""
        with self._starting:
            if self._gateway is None:
                if self._is_over:
                    raise RouterClosedError("the gateway has ended with its application")
                self._gateway = MountedGateway(self._config)
            return self._gateway

    @asynccontextmanager
    async def lifespan(self, _outer: object = None) -> AsyncIterator[None]:
        """Starts the gateway, and drains it at the end: the ``lifespan`` of an application of
        FastAPI or Starlette that this one is mounted in.
        """
        self._is_over = False
        gateway = await asyncio.to_thread(lambda: self.gateway)
        try:
            yield
        finally:
            self._is_over = True
            await asyncio.to_thread(gateway.drain)
            self._gateway = None

    def close(self) -> None:
        """Ends the gateway at once, where it was started; answers under way are broken off."""
        if self._gateway is not None:
            self._gateway.close()
            self._gateway = None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or begins and ends with the server."""
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        living = self.lifespan()
        try:
            await living.__aenter__()
        except Exception as why:
            await send({"type": "lifespan.startup.failed", "message": str(why)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await living.__aexit__(None, None, None)
        await send({"type": "lifespan.shutdown.complete"})

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        gateway = self._gateway
        if gateway is None:
            gateway = await asyncio.to_thread(lambda: self.gateway)
        event_loop = asyncio.get_running_loop()
        loop = self._loops.get(event_loop)
        if loop is None:
            loop = self._loops[event_loop] = _Loop(event_loop)
        exchange = gateway.ask(
            loop.mailbox, scope["method"], _target(scope), list(scope["headers"])
        )
        hearing = event_loop.create_task(_hear(exchange, receive))
        try:
            await _tell(exchange, loop, send)
        except EngineError:
            # Where the client has gone, that is why it broke off.
            if not hearing.done():
                raise
        finally:
            # Now, and not when the traceback is gone that holds it.
            exchange.cancel()
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


class _Loop:
    """An event loop, and who waits in it for which exchange."""

    def __init__(self, event_loop: asyncio.AbstractEventLoop) -> None:
        self.mailbox = Mailbox()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        event_loop.add_reader(self.mailbox.fileno(), self._wake)

    def _wake(self) -> None:
        for number in self.mailbox.collect():
            waiter = self._waiting.get(number)
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    async def news(
        self, exchange: Exchange
    ) -> tuple[tuple[int, list[tuple[bytes, bytes]]] | None, bytes, bool, str | None]:
        """What has come of an answer, once something has."""
        while (news := exchange.take()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting[exchange.number] = waiter
            try:
                await waiter
            finally:
                del self._waiting[exchange.number]
        return news


async def _hear(exchange: Exchange, receive: Receive) -> None:
    """Feeds a request's body, and aborts it when its client has gone."""
    has_more = is_wanted = True
    while has_more and (message := await receive())["type"] == "http.request":
        has_more = message.get("more_body", False)
        # Once it is refused the rest only has to be out of the way.
        is_wanted = is_wanted and exchange.feed(message.get("body", b""), not has_more)
    if message["type"] != "http.disconnect":
        message = await receive()
    if message["type"] == "http.disconnect":
        exchange.cancel()


async def _tell(exchange: Exchange, loop: _Loop, send: Send) -> None:
    """Sends an answer as it comes."""
    is_over = False
    while not is_over:
        head, body, is_over, fault = await loop.news(exchange)
        if head is not None:
            status, headers = head
            await send({"type": "http.response.start", "status": status, "headers": headers})
        if fault is not None:
            # An answer without its end: the server closes the connection, which tells the client.
            raise EngineError(fault)
        await send({"type": "http.response.body", "body": body, "more_body": not is_over})


def _target(scope: Message) -> str:
    """Path and query, as the gateway knows them: without what it is mounted at."""
    path, root = scope["path"], scope.get("root_path", "").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :] or "/"
    query = scope.get("query_string", b"").decode("latin-1")
    return quote(path, safe=_IN_PATHS) + (f"?{query}" if query else "")
