"""One deployment's brain in one process: Ray's replicas and requests, as the router knows them.

Everything here is called from the one event loop that Ray routes a deployment's requests in, and
returns at once; only :meth:`DeploymentBrain.counters` and what an ingress router asks may be called
from elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakSet

from llmd_sched._core import Decision, Router
from llmd_sched._errors import LlmdError
from llmd_sched.ray._replicas import endpoint_of, signals_of
from llmd_sched.ray._requests import Asked, asked
from llmd_sched.ray._settings import Settings

logger = logging.getLogger("llmd_sched.ray")

Ranks = list[list[Any]]
# A prompt that fills no block.
UNKNOWN = (0,)
# One pick in so many is timed: to ask for a thread's CPU time is a system call, which costs as much
# as a quarter of a pick.
TIMED_PICKS = 16


class Booking:
    """A request that has a place, until Ray says that it is over."""

    __slots__ = ("asked", "booked_at_s", "decision", "future", "is_waiting")

    def __init__(self, asked: Asked, decision: Decision, future: Any, booked_at_s: float) -> None:
        self.asked = asked
        self.decision = decision
        self.future = future
        self.booked_at_s = booked_at_s
        self.is_waiting = True


class DeploymentBrain:
    """Ranks replicas for requests, and keeps the ledger of what is in flight."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self._find = settings.finder()
        self._usual = settings.request_options()
        self.router = Router(
            settings.router_config(), block_size=settings.block_size, profile=settings.policy
        )
        self._lease_s = self.router.config()["fleet"]["lease_ms"] / 1e3
        # By the replica's full id, which is its endpoint's address.
        self._replicas: dict[str, Any] = {}
        self._described: dict[str, Any] = {}
        self._signals: dict[str, Any] = {}
        # Oldest first.
        self._bookings: dict[str, Booking] = {}
        # The attempts that are over, for as long as Ray has them: see `taken`.
        self._over: WeakSet[Any] = WeakSet()
        # No booking is overdue before.
        self._overdue_s = 0.0
        self._picks = 0
        self._repicks = 0
        self._moved = 0
        self._reports = 0
        self._bad_reports = 0
        self._fallbacks = 0
        self._last_error: str | None = None
        self._timed_picks = 0
        self._pick_cpu_ns = 0

    # What Ray asks.

    def rank(
        self,
        candidates: Sequence[Any],
        pending: Any,
        available: Callable[[Sequence[Any]], Sequence[Any]],
    ) -> Ranks:
        """Replicas in the order in which Ray should try them: the best, then all."""
        if pending is None or not candidates:
            return [list(candidates)]
        # Without it Ray asks again at once while everybody is full.
        pending.routing_context.should_backoff = True
        self._picks += 1
        is_timed = self._picks % TIMED_PICKS == 0
        try:
            before = time.thread_time_ns() if is_timed else 0
            best = self._pick(candidates, pending, available)
            if is_timed:
                self._timed_picks += 1
                self._pick_cpu_ns += time.thread_time_ns() - before
        except Exception as failed:
            self._fell_back(failed)
            return [list(candidates)]
        return [[best], list(candidates)]

    def _pick(
        self,
        candidates: Sequence[Any],
        pending: Any,
        available: Callable[[Sequence[Any]], Sequence[Any]],
    ) -> Any:
        now_s = time.monotonic()
        if now_s >= self._overdue_s:
            self._forget_overdue(now_s)
        request_id = pending.metadata.internal_request_id
        before = self._bookings.pop(request_id, None)
        if before is not None:
            self._repicks += 1
            self.router.cancel(before.decision)
        wanted = asked(pending, self._usual, self._find)
        # Whoever is asked again was turned away by somebody full.
        allowed = None
        if before is not None or len(candidates) != len(self._replicas):
            free = available(candidates) or candidates
            allowed = [full_id(it) for it in free if full_id(it) in self._replicas]
        decision = self._route(wanted, allowed)
        self._bookings[request_id] = Booking(wanted, decision, pending.future, now_s)
        if before is None or before.future is not pending.future:
            pending.future.add_done_callback(lambda future: self._placed(request_id, future))
        return self._replicas[decision.address]

    def _forget_overdue(self, now_s: float) -> None:
        """Ray does not tell of every end (``choose_replica(_reserve=False)``): nothing is kept for
        longer than the router's own lease.

        NOTE(perf): not asked with each pick. The first key of a dict from whose front keys were
        removed is found behind all of those, which after a burst are many.
        """
        overdue: list[str] = []
        self._overdue_s = now_s + self._lease_s
        for request_id, booking in self._bookings.items():
            due_s = booking.booked_at_s + self._lease_s
            if due_s > now_s:
                self._overdue_s = due_s
                break
            overdue.append(request_id)
        for request_id in overdue:
            self.router.cancel(self._bookings.pop(request_id).decision)

    def _route(self, wanted: Asked, allowed: Sequence[str] | None) -> Decision:
        options = wanted.options
        if allowed is not None:
            options = {**options, "allowed": allowed}
        if wanted.tokens is not None:
            return self.router.route(wanted.tokens, **options)
        if wanted.text:
            return self.router.route(text=wanted.text, **options)
        # Nothing is known of its prompt: it counts as a request, and matches nothing.
        return self.router.route(UNKNOWN, **options)

    def _placed(self, request_id: str, future: Any) -> None:
        """Ray has chosen, or nobody wants the request any more."""
        booking = self._bookings.get(request_id)
        if booking is None or booking.future is not future:
            return
        if future.cancelled() or future.exception() is not None:
            del self._bookings[request_id]
            self.router.cancel(booking.decision)
            return
        chosen = full_id(future.result())
        booking.is_waiting = False
        if chosen == booking.decision.address or chosen not in self._replicas:
            return
        # Its place was full.
        del self._bookings[request_id]
        self.router.cancel(booking.decision)
        try:
            self._book_at(chosen, request_id, booking.asked, future)
        except LlmdError as failed:
            self._fell_back(failed)

    def _book_at(self, name: str, request_id: str, wanted: Asked, future: Any) -> None:
        """Books a request that has no booking where Ray has sent it."""
        self._moved += 1
        booking = Booking(wanted, self._route(wanted, [name]), future, time.monotonic())
        booking.is_waiting = False
        self._bookings[request_id] = booking

    def taken(self, pending: Any, replica_id: Any, result: Any) -> None:
        """A replica has taken a request.

        It need not be booked. A short one may be over: Ray tells of its end as soon as that is
        known, and of this when the task that sent it runs again. And where one of a fleet that is
        full turned it away, its booking ended with that, and Ray may then give it the replica that
        it had another one pick.
        """
        try:
            self._taken(pending, replica_id, result)
        except Exception as failed:
            # Counted, where it is one, when the request was picked a place.
            self._note("a request is not booked", failed)

    def _taken(self, pending: Any, replica_id: Any, result: Any) -> None:
        name = replica_id.to_full_id_str()
        request_id = pending.metadata.internal_request_id
        booking = self._bookings.get(request_id)
        if booking is not None and booking.decision.address == name:
            booking.is_waiting = False
            return
        if pending.future in self._over:
            return
        if booking is not None:
            del self._bookings[request_id]
            self.router.cancel(booking.decision)
        if name not in self._replicas:
            return
        wanted = booking.asked if booking else asked(pending, self._usual, self._find)
        self._book_at(name, request_id, wanted, pending.future)
        if booking is None:
            # Its end may have been told of already, when there was nothing to release.
            loop = pending.future.get_loop()
            result.add_done_callback(
                lambda _: loop.call_soon_threadsafe(self.completed, replica_id, request_id)
            )

    # What Ray tells.

    def sync(self, replicas: Sequence[Any]) -> None:
        """These are the replicas now."""
        try:
            self._sync(replicas)
        except Exception as failed:
            self._fell_back(failed)

    def _sync(self, replicas: Sequence[Any]) -> None:
        there = {full_id(replica): replica for replica in replicas}
        for gone in self._replicas.keys() - there.keys():
            self._remove(gone)
        for name, replica in there.items():
            described = endpoint_of(replica, self.settings)
            if name in self._replicas and described != self._described[name]:
                # It tells only now where it publishes: what it was believed to hold is worth less.
                self._remove(name)
            if name not in self._replicas:
                self._join(name, described)
                self._described[name] = described
            self._replicas[name] = replica
            # Ray says all of it whenever anything changed anywhere: what did not is no news.
            if (signals := signals_of(replica)) != self._signals.get(name):
                self._signals[name] = signals
                if signals is not None:
                    self._report(name, signals)

    def _join(self, name: str, described: Mapping[str, Any]) -> None:
        try:
            self.router.add_endpoint(name, **described)
        except (LlmdError, TypeError) as failed:
            # It can still be given requests.
            self._bad_reports += 1
            self._note(f"what {name} tells of its engine is left out", failed)
            self.router.add_endpoint(name)

    def _report(self, name: str, signals: Mapping[str, Any]) -> None:
        try:
            self.router.report(name, **signals)
            self._reports += 1
        except (LlmdError, TypeError) as failed:
            self._bad_reports += 1
            self._note(f"the routing stats of {name} are left out", failed)

    def died(self, replica_id: Any) -> None:
        """A replica is no more; it may be said again, or of one never seen."""
        try:
            self._remove(replica_id.to_full_id_str())
        except Exception as failed:
            self._fell_back(failed)

    def _remove(self, name: str) -> None:
        if self._replicas.pop(name, None) is None:
            return
        del self._described[name]
        self._signals.pop(name, None)
        self.router.remove_endpoint(name)
        lost = [it for it, booking in self._bookings.items() if booking.decision.address == name]
        for request_id in lost:
            del self._bookings[request_id]

    def completed(self, replica_id: Any, request_id: str) -> None:
        """A request is over. Ray says it too of a replica that only turned the request away, while
        the request has been picked its next place already.
        """
        booking = self._bookings.get(request_id)
        if booking is None or booking.is_waiting:
            return
        if booking.decision.address != replica_id.to_full_id_str():
            return
        del self._bookings[request_id]
        self._over.add(booking.future)
        self.router.finish(booking.decision)

    # What an ingress router asks, from another thread than Ray's: it only reads.

    def usual_options(self) -> dict[str, Any]:
        """The options that a request gets unless it says otherwise, of which the caller may change
        its copy.
        """
        return dict(self._usual)

    def replica(self, name: str) -> Any:
        """A replica as Ray has it; None where it is gone."""
        return self._replicas.get(name)

    def replica_names(self) -> list[str]:
        """All that are there."""
        return list(self._replicas)

    # What is shown.

    def counters(self) -> dict[str, Any]:
        """As :func:`llmd_sched.ray.counters` says."""
        return {
            "picks": self._picks,
            "repicks": self._repicks,
            "moved": self._moved,
            "reports": self._reports,
            "bad_reports": self._bad_reports,
            "fallbacks": self._fallbacks,
            "last_error": self._last_error,
            "booked": len(self._bookings),
            "waiting": sum(it.is_waiting for it in list(self._bookings.values())),
            "pick_cpu_us": self._pick_cpu_ns / 1e3 / max(self._timed_picks, 1),
            "router": self.router.stats(),
        }

    def _fell_back(self, failed: Exception) -> None:
        self._fallbacks += 1
        self._note("Ray chooses", failed)

    def _note(self, consequence: str, failed: Exception) -> None:
        said = f"{type(failed).__name__}: {failed}"
        if said != self._last_error:
            logger.warning("%s: %s, because of %s", self.name, consequence, said)
        self._last_error = said

    def close(self) -> None:
        """Ends what runs for the router."""
        self.router.close()


def full_id(replica: Any) -> str:
    """The name of a replica that no other has, which is its endpoint's address."""
    name: str = replica.replica_id.to_full_id_str()
    return name
