"""A live router seen from another process: :func:`attach`."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmd_sched import _core
from llmd_sched._errors import EngineError, LlmdError

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from llmd_sched._core import Endpoint, Explanation
    from llmd_sched._types import RequestOptions, Tokens

# A router's admin address is inside one's own network: never through a proxy.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RemoteRouter:
    """A router in another process, to look at and to ask; get one from :func:`attach`.

    Nothing that it does changes the router: :meth:`explain` is a dry run.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        """Names the admin address of a router; nothing is sent yet."""
        self._url = url.rstrip("/")
        self._timeout_s = timeout_s

    @property
    def url(self) -> str:
        """Admin address of the router."""
        return self._url

    def endpoints(self) -> list[Endpoint]:
        """Who is in the fleet, and how they are, as of this call.

        Raises :class:`EngineError` where the router does not answer.
        """
        return [_core.Endpoint.from_json(row) for row in self._get("/endpoints")["endpoints"]]

    def stats(self) -> dict[str, Any]:
        """Reads the counters of the router, as :meth:`Router.stats` gives them."""
        stats: dict[str, Any] = self._get("/stats")
        return stats

    def config(self) -> dict[str, Any]:
        """Reads the configuration that the router runs with, defaults filled in."""
        config: dict[str, Any] = self._get("/config")
        return config

    def explain(
        self,
        tokens: Tokens | None = None,
        *,
        text: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Explanation:
        """Asks where the router would send this request now, and why, without booking anything."""
        body = _core.explain_body(tokens, text=text, **options)
        return _core.Explanation.from_json(self._post("/explain", body))

    def __repr__(self) -> str:
        return f"RemoteRouter({self._url!r})"

    def _get(self, path: str) -> Any:
        return self._send(urllib.request.Request(self._url + path))

    def _post(self, path: str, body: bytes) -> Any:
        headers = {"content-type": "application/json"}
        return self._send(
            urllib.request.Request(self._url + path, body, headers=headers, method="POST")
        )

    def _send(self, request: urllib.request.Request) -> Any:
        try:
            with _DIRECT.open(request, timeout=self._timeout_s) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            detail = error.read(4096).decode("utf-8", "replace").strip()
            raise LlmdError(f"{request.full_url} answered {error.code}: {detail}") from error
        except (OSError, ValueError) as error:
            raise EngineError(
                f"no router answers at {request.full_url}: {error}; "
                "start one there with Router.serve_admin()"
            ) from error


def attach(url: str, *, timeout_s: float = 10.0) -> RemoteRouter:
    """Attaches to a live router that called :meth:`Router.serve_admin`.

    ``url`` is what that call returned. Raises :class:`EngineError` where nothing answers.

    >>> import llmd_sched
    >>> router = llmd_sched.Router()
    >>> _ = router.add_endpoint("http://10.0.0.1:8000")
    >>> remote = llmd_sched.attach(router.serve_admin())
    >>> [endpoint.address for endpoint in remote.endpoints()]
    ['http://10.0.0.1:8000']
    >>> router.close()
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{url!r} is not a router's address: give http://host:port")
    remote = RemoteRouter(url, timeout_s=timeout_s)
    remote.stats()
    return remote
