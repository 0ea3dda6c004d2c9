"""A gateway inside a server of Python's: what :mod:`llmd_sched.asgi` is made of."""

from collections.abc import Sequence
from typing import Any, final

from llmd_sched._types import ConfigSource
from typing_extensions import Self

@final
class MountedGateway:
    """A :class:`Gateway` without a port: requests are handed in by a server in this process.

    ``config`` is that of a gateway. Raises as that does, and :class:`ConfigError` where it has
    ``tls``, which is the server's.

    >>> from llmd_sched._core import MountedGateway
    >>> gateway = MountedGateway({"endpoints": []})
    >>> gateway.endpoints()
    []
    >>> gateway.close()
    """

    def __new__(cls, config: ConfigSource) -> Self: ...
    @property
    def admin_url(self) -> str | None:
        """Where its admin API serves, if it has one."""

    def endpoints(self) -> list[dict[str, Any]]:
        """As :meth:`Gateway.endpoints`."""

    def reload(self, config: ConfigSource | None = None) -> None:
        """As :meth:`Gateway.reload`."""

    def ask(
        self,
        mailbox: Mailbox,
        method: str,
        target: str,
        headers: Sequence[Sequence[bytes]],
    ) -> Exchange:
        """Begins to serve a request; ``target`` is its path and query, and its body is to be fed.

        Of what comes of its answer the mailbox tells.
        """

    def drain(self) -> None:
        """Waits for answers under way, at most ``drain_ms``, and ends."""

    def close(self) -> None:
        """Ends at once; answers under way are broken off."""

@final
class Exchange:
    """A request and its answer. When nobody has it any more, both are aborted."""

    @property
    def number(self) -> int:
        """What its mailbox calls it."""

    def feed(self, piece: bytes, is_last: bool) -> bool:
        """Gives more of the request's body, or the last of it; returns whether more is wanted."""

    def take(
        self,
    ) -> tuple[tuple[int, list[tuple[bytes, bytes]]] | None, bytes, bool, str | None] | None:
        """What has come of the answer: its head, as status and headers, the first time; of its body
        what has come since; whether it is over; and why, where it broke off.

        None where nothing has come: the mailbox tells once something does, and only then.
        """

    def cancel(self) -> None:
        """Aborts it, at its engine too."""

@final
class Mailbox:
    """Tells an event loop of which exchanges something has come."""

    def __new__(cls) -> Self: ...
    def fileno(self) -> int:
        """A file descriptor that is readable where there is something to collect."""

    def collect(self) -> list[int]:
        """The numbers of the exchanges that were waited for, and of which something has come."""
