"""How many replicas a fleet should have."""

from collections.abc import Mapping
from typing import Any, final

@final
class SloScaler:
    """Sizes a fleet by how near it is to missing its objectives; it starts and stops nothing.

    Keywords, all optional: ``min_replicas`` (1) and ``max_replicas`` (8); ``attainment`` (0.95),
    share of the requests to be in time; ``kv_share`` (0.8), share of a KV cache that requests in
    flight may hold; ``startup_s`` (60), what a new replica takes to serve, seconds; ``window_s``
    (60), time that the work is averaged over; ``up_after_s`` (20) and ``down_after_s`` (300), for
    how long every look must ask for more replicas, and none for as many; ``slack`` (0.2), share
    of what may be strained that a smaller fleet must leave.

    Formulas: ``src/brain/scale/strain.rs`` (Little's law for the time per output token,
    Sakasegawa's approximation of M/G/n for the time to first token). Equal readings at equal
    times give equal answers. Raises :class:`ConfigError` for a setting that cannot be.

    >>> from llmd_sched import SloScaler
    >>> scaler = SloScaler(max_replicas=16)
    >>> count = {"requests": 0.0, "prefill_ms": 0.0, "prefill_ms_squared": 0.0}
    >>> target = 1
    >>> for now_s in range(0, 600, 10):
    ...     # Each second ten requests of 200 ms of prefill: two replicas' work.
    ...     count["requests"] += 100
    ...     count["prefill_ms"] += 100 * 200.0
    ...     count["prefill_ms_squared"] += 100 * 200.0**2
    ...     scaler.read(now_s, "router-0", count)
    ...     verdict = scaler.look(now_s, ready=target, target=target)
    ...     target = verdict["desired"]
    >>> target, round(verdict["work"], 3)
    (3, 2.0)
    """

    def __new__(cls, **settings: Any) -> SloScaler: ...
    def read(self, now_s: float, source: str, demand: Mapping[str, float]) -> None:
        """Takes what a router has counted so far: :meth:`Router.demand`, missing keys are 0.

        ``source`` tells routers apart; each counts from its own beginning, and one that began
        anew counts from 0 again. ``now_s`` is any clock in seconds, the same in every call.
        Raises :class:`ConfigError` for unknown keys and for what is no number of 0 or more.
        """

    def look(self, now_s: float, ready: int, target: int) -> dict[str, Any]:
        """How many replicas there should be: ``desired``, and why.

        ``ready`` replicas serve, ``target`` are wanted so far. ``needed`` is what this look alone
        asks for; ``strain``, 1 where the objectives are just met by the formulas; ``allowed``,
        what it may be, as learned; ``bound``, what strains it: ``"tpot"``, ``"ttft"``, ``"kv"``
        or ``"idle"``; ``work``, replicas' worth of it; ``is_informed``, whether anything was read
        since the last look: where not, ``desired`` is ``target``.
        """

    def set_bounds(self, min_replicas: int, max_replicas: int) -> None:
        """Other bounds from now on. Raises :class:`ConfigError`."""

    def config(self) -> dict[str, Any]:
        """All settings."""
