"""The order of turns, for an engine's own queue."""

from typing import Any, final

@final
class TurnQueue:
    """Who is next among requests that wait in one engine, as ``docs/flow.md`` has it for routers.

    Bands of equal priority, strictly; tenants fairly by tokens within a band; one tenant's requests
    by ``order``; and every so many turns that of whoever has waited the longest. Keywords, all
    optional, as under ``flow.turns``: ``order`` (``"fcfs"``, ``"deadline"`` or
    ``"shortest-first"``), ``short_first_ms_per_token`` (1.0), ``age_s`` (30.0), ``aged_every`` (8),
    ``tenant_weights`` (mapping, 1 where not named).

    Times are of any clock in seconds, the same in every call. Raises :class:`ConfigError` for a
    setting that cannot be.

    >>> from llmd_sched import TurnQueue
    >>> queue = TurnQueue(order="deadline")
    >>> queue.push(1, 0.0, due_ms=5000)
    >>> queue.push(2, 1.0, due_ms=200)
    >>> queue.push(3, 1.0, due_ms=9000, priority=1)
    >>> order = []
    >>> while (ticket := queue.next(now_s=1.0)) is not None:
    ...     _ = queue.served(ticket)
    ...     order.append(ticket)
    >>> order
    [3, 2, 1]
    """

    def __new__(cls, **settings: Any) -> TurnQueue: ...
    def push(
        self,
        ticket: int,
        since_s: float,
        *,
        priority: int = 0,
        tenant: str | None = None,
        due_ms: float | None = None,
        uncached_tokens: int = 0,
        output_tokens: int = 0,
        has_paid: bool = False,
    ) -> None:
        """A request waits that came at ``since_s``; one that waits already, as it is told now.

        - ``priority``: higher is more important; ``tenant``: who shares fairly with others.
        - ``due_ms``: when it is due, ms after it came; without it, when it has aged.
        - ``uncached_tokens``: of the prompt, to compute; ``output_tokens``: of its answer. A tenant
          pays the former and twice the latter.
        - ``has_paid``: it was let go before and comes back, preempted or passed over.
        """

    def next(self, now_s: float) -> int | None:
        """Whose turn it is; None where nobody waits."""

    def served(self, ticket: int) -> bool:
        """It was let go, and its tenant pays. Returns whether it waited."""

    def remove(self, ticket: int) -> bool:
        """It waits no longer, and pays nothing. Returns whether it waited."""

    def __len__(self) -> int: ...
