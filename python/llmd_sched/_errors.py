"""What can go wrong, as one small tree under :class:`LlmdError`.

Each message says what was wrong, with the value, and what to do about it. Where Python has a
built-in exception for the kind of mistake, the class is also that one, so that code which does
not know llmd-sched still catches it.
"""


class LlmdError(Exception):
    """Anything that llmd-sched raises on purpose."""


class ConfigError(LlmdError, ValueError):
    """A configuration that cannot be: an unknown key, a wrong type, a value out of range."""


class PromptError(LlmdError, ValueError):
    """A prompt or a request option that cannot be: empty, or a token id out of range."""


class NotExactError(LlmdError, ValueError):
    """A prompt whose token ids are not known here as an engine makes them; the message says why.

    The prompt itself may be fine: route it by its text.
    """


class EndpointError(LlmdError, ValueError):
    """An endpoint that cannot be: two with one address and rank, or a field out of range."""


class UnknownEndpointError(EndpointError, LookupError):
    """No endpoint of the fleet is meant: it never joined, or it has left."""


class NoEndpointError(LlmdError):
    """No endpoint can serve the request now; the message says what ruled them out.

    ``reason`` is one of ``"empty-fleet"``, ``"no-candidate"``, ``"not-booked"`` (too many
    reservations), ``"saturated"`` (every endpoint has enough to do), ``"no-room"`` (for its
    session), ``"not-held"`` (too many held requests), ``"shed"`` (for a more important one),
    ``"hold-expired"``, ``"deadline-passed"`` and ``"closed"``.

    ``retry_after_ms`` is given where others are in its way, and says when it may have more luck;
    ``status`` is the HTTP status to answer with: 429 with it, 503 without.
    """

    reason: str
    retry_after_ms: int | None

    def __init__(
        self, message: str, reason: str = "no-candidate", retry_after_ms: int | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_ms = retry_after_ms

    @property
    def status(self) -> int:
        return 503 if self.retry_after_ms is None else 429

    def __reduce__(self) -> tuple[type["NoEndpointError"], tuple[str, str, int | None]]:
        return type(self), (str(self), self.reason, self.retry_after_ms)


class ScoreError(LlmdError, ValueError):
    """Scores given to :meth:`Router.commit` that do not fit the candidates."""


class EngineError(LlmdError, ConnectionError):
    """A live engine or router could not be reached, or did not answer as one."""


class PeerError(LlmdError, ValueError):
    """Another router's message that cannot be taken in, an address that cannot be listened at or
    followed, or a router without a name of its own: the message says which.
    """


class KvTimeoutError(LlmdError, TimeoutError):
    """An engine's KV events did not reach the wanted sequence number in time."""


class ReplayError(LlmdError, ValueError):
    """A decision log that cannot be read: another format, another version, or damaged."""


class RouterClosedError(LlmdError, RuntimeError):
    """The router was closed."""


class SnapshotError(LlmdError, ValueError):
    """A saved index that cannot be loaded: damaged, of another version or block size."""


class WorkloadError(LlmdError, ValueError):
    """A workload or trace that cannot be simulated: empty, damaged or out of range."""


class MissingDependencyError(LlmdError, ImportError):
    """A package that llmd-sched does not bring along is needed for this; the message says how."""
