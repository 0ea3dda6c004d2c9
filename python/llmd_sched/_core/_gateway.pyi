"""OpenAI's API in front of engines."""

from types import TracebackType
from typing import Any, final

from llmd_sched._types import ConfigSource
from typing_extensions import Self

@final
class Gateway:
    """Serves OpenAI's API in front of engines, placed by a router of its own, until it is closed.

    ``config`` is a mapping or the path of a ``.toml``, ``.yaml``, ``.yml`` or ``.json`` file, as
    ``llmd-sched serve --config`` reads it; ``docs/gateway.md`` lists the keys. Clients are served
    by threads of the gateway's own, which never take the GIL.

    Raises :class:`ConfigError` for a configuration that cannot be, :class:`EndpointError` for an
    engine's address that cannot be, and :class:`OSError` where the port is not to be had.

    >>> from llmd_sched import Gateway
    >>> with Gateway({"listen": "127.0.0.1:0", "endpoints": []}) as gateway:
    ...     gateway.url.startswith("http://127.0.0.1:"), gateway.endpoints()
    (True, [])
    """

    def __new__(cls, config: ConfigSource) -> Self: ...
    @property
    def url(self) -> str:
        """Where it serves, without a slash at the end."""

    @property
    def admin_url(self) -> str | None:
        """Where its admin API serves, if it has one."""

    def endpoints(self) -> list[dict[str, Any]]:
        """The engines' ranks that are in the fleet now, with their load and health.

        Engines join when they can be asked what they are, which may be after the gateway started.
        """

    def reload(self, config: ConfigSource | None = None) -> None:
        """Serves by other settings: ``config``, or the file that it was started with, read again.

        All or none of them take effect, and requests that are under way keep to those that they
        began with. Raises :class:`ConfigError` for settings that cannot be, or cannot change while
        it serves, :class:`EndpointError` for an address that cannot be.
        """

    def drain(self) -> None:
        """Takes no new requests, waits for answers under way, at most ``drain_ms``, and ends."""

    def close(self) -> None:
        """Ends at once; answers under way are broken off."""

    def __enter__(self) -> Self:
        """Itself."""

    def __exit__(
        self,
        _exc_type: type[BaseException] | None,
        _exc_value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Drains it."""
