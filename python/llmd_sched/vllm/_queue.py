"""A waiting queue of vLLM's scheduler whose order is that of turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from llmd_sched._core import TurnQueue
from llmd_sched.vllm._borrowed import borrowed

[_RequestQueue] = borrowed("vllm.v1.core.sched.request_queue", "RequestQueue")


# What a client says wrong must not stop an engine for everybody: priorities are cut to this, times
# that are none are passed over.
MOST_PRIORITY = (1 << 31) - 1


class TurnRequestQueue(_RequestQueue):  # type: ignore[misc, valid-type]
    """Those who wait, by :class:`llmd_sched.TurnQueue`.

    vLLM looks at who is next, and takes that one out or passes it over: what it passes over it
    takes out too, and puts back at the end of the step. Whoever is put back, by that or by a
    preemption, keeps the time at which it came and is not charged again.
    """

    def __init__(
        self, turns: Mapping[str, Any], cached_tokens: Callable[[Any], int] = lambda _: 0
    ) -> None:
        self._turns = TurnQueue(**turns)
        self._cached_tokens = cached_tokens
        self._tickets = itertools.count(1)
        self._ticket_of: dict[str, int] = {}
        self._waiting: dict[int, Any] = {}
        # One moment for a whole step: who is next does not change between a look and a grasp.
        self.now_s = time.time()

    def add_request(self, request: Any) -> None:
        """One more waits."""
        self._push(request, has_paid=False)

    def _push(self, request: Any, *, has_paid: bool) -> None:
        ticket = self._ticket_of.get(request.request_id) or next(self._tickets)
        self._ticket_of[request.request_id] = ticket
        self._waiting[ticket] = request
        params = request.sampling_params
        said = (params and params.extra_args) or {}
        self._turns.push(
            ticket,
            request.arrival_time,
            priority=max(-MOST_PRIORITY, min(-request.priority, MOST_PRIORITY)),
            tenant=_name(said.get("tenant")),
            due_ms=_ms(said.get("deadline_ms"), said.get("ttft_slo_ms")),
            uncached_tokens=max(request.num_tokens - self._cached_tokens(request), 0),
            output_tokens=request.max_tokens,
            has_paid=has_paid,
        )

    def peek_request(self) -> Any:
        """Whose turn it is. Raises IndexError where nobody waits."""
        return self._waiting[self._next()]

    def pop_request(self) -> Any:
        """Lets go whose turn it is. Raises IndexError where nobody waits."""
        ticket = self._next()
        self._turns.served(ticket)
        return self._forget(ticket)

    def _next(self) -> int:
        ticket = self._turns.next(self.now_s)
        if ticket is None:
            raise IndexError("nobody waits")
        return ticket

    def _forget(self, ticket: int) -> Any:
        request = self._waiting.pop(ticket)
        del self._ticket_of[request.request_id]
        return request

    def prepend_request(self, request: Any) -> None:
        """One comes back."""
        self._push(request, has_paid=True)

    def prepend_requests(self, requests: Iterable[Any]) -> None:
        """Some come back."""
        for request in requests:
            self._push(request, has_paid=True)

    def remove_request(self, request: Any) -> None:
        """One waits no longer. Raises ValueError where it does not wait."""
        ticket = self._ticket_of.get(request.request_id)
        if ticket is None:
            raise ValueError(f"{request.request_id} does not wait")
        self._turns.remove(ticket)
        self._forget(ticket)

    def remove_requests(self, requests: Iterable[Any]) -> None:
        """Those of them who wait do so no longer."""
        for request in list(requests):
            if request.request_id in self._ticket_of:
                self.remove_request(request)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Any]:
        """In the order in which they came: their turns depend on when they are asked for."""
        return iter(list(self._waiting.values()))


def _name(said: Any) -> str | None:
    return None if said is None else str(said)


def _ms(*said: Any) -> float | None:
    """The first that is a time."""
    for value in said:
        try:
            due_ms = float(value)
        except (TypeError, ValueError):
            continue
        if 0 <= due_ms < float("inf"):
            return due_ms
    return None
