"""One deployment's brain in one process: Ray's replicas and requests, as the router knows them.

Everything here is called from the one event loop that Ray routes a deployment's requests in, and
returns at once; only :meth:`DeploymentBrain.counters` and what an ingress router asks may be called
from elsewhere.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any
from weakref import WeakSet

from llmd_sched._core import Decision, Router
from llmd_sched._errors import LlmdError
from llmd_sched.ray._exchange import Exchange
from llmd_sched.ray._keys import RequestKeys
from llmd_sched.ray._metrics import Metrics
from llmd_sched.ray._replicas import endpoint_of, signals_of
from llmd_sched.ray._requests import found, with_ids
from llmd_sched.ray._settings import Settings
from llmd_sched.ray._texts import NO_TEXTS, Texts, tokens_of

logger = logging.getLogger("llmd_sched.ray")

Ranks = list[list[Any]]
# One pick in so many looks at clocks: to ask for a thread's CPU time is a system call, which costs
# a quarter of what a pick does, and to ask what time it is costs 0.1 us.
CLOCKED_PICKS = 16


Booking = tuple[Decision, Any, int, Any]
"""A request that has a place, until Ray says that it is over: its place, the future by which Ray
sends it, in which lease it was booked, and what Ray calls its metadata, which no other request has.

NOTE(perf): an object of its own class costs 0.1 us more to make.
"""


class DeploymentBrain:
    """Ranks replicas for requests, and keeps the ledger of what is in flight."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self._find = settings.finder()
        self.texts = None if settings.tokenizer is None else Texts(settings.tokenizer)
        # Whether there is more to a call than the router finds in it.
        self._is_read_here = self._find is not None or self.texts is not None
        self._usual = settings.request_options()
        self.router = Router(
            settings.router_config(), block_size=settings.block_size, profile=settings.policy
        )
        self._route_call = self.router._route_call
        self._metrics = Metrics(name)
        self._exchange = Exchange(
            name,
            self.router,
            settings.exchange_ms,
            cordoned=self._cordon,
            look=self.tell_metrics,
        )
        # Replaced as a whole, by another thread.
        self._cordoned: frozenset[str] = frozenset()
        self._lease_s = self.router.config()["fleet"]["lease_ms"] / 1e3
        # By the replica's full id, which is its endpoint's address.
        self._replicas: dict[str, Any] = {}
        self._described: dict[str, Any] = {}
        self._signals: dict[str, Any] = {}
        self._keys = RequestKeys()
        # Oldest first.
        self._bookings: dict[str, Booking] = {}
        # Requests that Ray has not sent yet, with their ids, by the futures that say where it does.
        self._waiting: dict[Any, tuple[str, Any]] = {}
        # Made once: it is given away with every pick.
        self._on_placed = self._placed
        # The attempts that are over, for as long as Ray has them: see `taken`.
        self._over: WeakSet[Any] = WeakSet()
        # Leases that passed since the first pick, and when the next one has.
        self._lease = 0
        self._lease_ends_s = 0.0
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
        candidates: list[Any],
        pending: Any,
        available: Callable[[Sequence[Any]], Sequence[Any]],
    ) -> Ranks:
        """Replicas in the order in which Ray should try them: the best, then all.

        NOTE(perf): all of it in one frame for a request that comes the first time and is read by
        the native module; the same in four frames took 0.4 us more.
        """
        if pending is None or not candidates:
            return [candidates]
        # Without it Ray asks again at once while everybody is full.
        pending.routing_context.should_backoff = True
        future = pending.future
        if future.done():
            # Older Rays look for a place, too, for a request that has gone its way meanwhile.
            return [candidates]
        self._picks = picks = self._picks + 1
        try:
            before_ns = 0 if picks % CLOCKED_PICKS else self._look_at_clocks()
            if self._cordoned:
                in_use = [it for it in candidates if full_id(it) not in self._cordoned]
                candidates = in_use or candidates
            bookings, metadata = self._bookings, pending.metadata
            request_id = metadata.internal_request_id
            is_again = False
            if request_id in bookings or self._keys.siblings:
                request_id = self._keys.of(pending, bookings)
                is_again = self._withdraw(request_id)
            try:
                session_id = metadata.session_id
            except AttributeError:
                # Ray 2.50 has none.
                session_id = ""
            # Whoever is asked again was turned away by somebody full.
            if is_again or len(candidates) != len(self._replicas):
                decision = self._route(pending, self._with_room(available(candidates), candidates))
            elif self._is_read_here or metadata.multiplexed_model_id or session_id:
                decision = self._route(pending, None)
            else:
                decision = self._route_call(pending.args, pending.kwargs, self._usual)
            bookings[request_id] = decision, future, self._lease, metadata
            if future not in self._waiting:
                # NOTE(perf): a callback that brings its request along costs 0.2 us more than this.
                self._waiting[future] = request_id, pending
                future.add_done_callback(self._on_placed)
            best = self._replicas[decision.address]
        except Exception as failed:
            self._fell_back(failed)
            return [candidates]
        if before_ns:
            self._pick_cpu_ns += time.thread_time_ns() - before_ns
            self._timed_picks += 1
        return [[best], candidates]

    def _withdraw(self, request_id: str) -> bool:
        """Releases the place that a request was picked before, if it was."""
        before = self._bookings.pop(request_id, None)
        if before is None:
            return False
        self._repicks += 1
        self.router.cancel(before[0])
        return True

    def _with_room(self, available: Sequence[Any], candidates: Sequence[Any]) -> list[str]:
        """The names of those that Ray knows to have room, or of all where none has."""
        names = (full_id(it) for it in available or candidates)
        return [name for name in names if name in self._replicas]

    def _look_at_clocks(self) -> int:
        """Forgets what is overdue, and returns this thread's CPU time, nanoseconds.

        Ray does not tell of every end (``choose_replica(_reserve=False)``). The router ends what it
        booked with its lease; here a booking is kept for one lease at least, and, while requests
        come, two at most.
        """
        now_s = time.monotonic()
        if now_s >= self._lease_ends_s:
            self._lease += 1
            self._lease_ends_s = now_s + self._lease_s
            self._forget_overdue()
        # The first look after a pause costs 1 to 3 us by itself.
        time.thread_time_ns()
        return time.thread_time_ns()

    def _forget_overdue(self) -> None:
        overdue: list[str] = []
        for request_id, (_, _, lease, _) in self._bookings.items():
            if lease > self._lease - 2:
                break
            overdue.append(request_id)
        for request_id in overdue:
            decision, future, _, _ = self._bookings.pop(request_id)
            self._waiting.pop(future, None)
            self.router.cancel(decision)
        self._keys.forget_all_but(self._bookings)

    def _route(self, pending: Any, allowed: Sequence[str] | None) -> Decision:
        args, kwargs = pending.args, pending.kwargs
        options = with_ids(self._usual, pending.metadata)
        if self._find is None:
            tokens = None if self.texts is None else tokens_of(pending)
            return self._route_call(args, kwargs, options, allowed, tokens)
        tokens, text, options = found(self._find(args, kwargs), options)
        if allowed is not None:
            options = {**options, "allowed": allowed}
        if tokens is not None:
            return self.router.route(tokens, **options)
        if text:
            return self.router.route(text=text, **options)
        return self._route_call((), None, options)

    def _placed(self, future: Any) -> None:
        """Ray has chosen, or nobody wants the request any more."""
        waiting = self._waiting.pop(future, None)
        if waiting is None:
            return
        request_id, pending = waiting
        booking = self._bookings.get(request_id)
        if booking is None or booking[1] is not future:
            return
        decision = booking[0]
        if future.cancelled() or future.exception() is not None:
            del self._bookings[request_id]
            self.router.cancel(decision)
            return
        chosen = full_id(future.result())
        if chosen == decision.address or chosen not in self._replicas:
            return
        # Its place was full.
        del self._bookings[request_id]
        self.router.cancel(decision)
        try:
            self._book_at(chosen, request_id, pending, future)
        except Exception as failed:
            self._fell_back(failed)

    def _book_at(self, name: str, request_id: str, pending: Any, future: Any) -> None:
        """Books a request that has no booking where Ray has sent it."""
        self._moved += 1
        decision = self._route(pending, [name])
        self._bookings[request_id] = decision, future, self._lease, pending.metadata

    def taken(self, pending: Any, replica_id: Any, result: Any, *, follow: bool = False) -> None:
        """A replica has taken a request, whose end Ray tells unless it is to be followed.

        It need not be booked. A short one may be over: Ray tells of its end as soon as that is
        known, and of this when the task that sent it runs again. And where one of a fleet that is
        full turned it away, its booking ended with that, and Ray may then give it the replica that
        it had another one pick.
        """
        try:
            if follow:
                self._follow(pending, replica_id, result)
            self._taken(pending, replica_id, result)
        except Exception as failed:
            # Counted, where it is one, when the request was picked a place.
            self._note("a request is not booked", failed)

    def _taken(self, pending: Any, replica_id: Any, result: Any) -> None:
        name = replica_id.to_full_id_str()
        request_id = self._keys.of(pending, self._bookings)
        self._waiting.pop(pending.future, None)
        booking = self._bookings.get(request_id)
        if booking is not None and booking[0].address == name:
            return
        if pending.future in self._over:
            return
        if booking is not None:
            del self._bookings[request_id]
            self.router.cancel(booking[0])
        if name not in self._replicas:
            return
        self._book_at(name, request_id, pending, pending.future)
        if booking is None:
            # Its end may have been told of already, when there was nothing to release.
            self._follow(pending, replica_id, result)

    def _follow(self, pending: Any, replica_id: Any, result: Any) -> None:
        """Has what Ray keeps of a request tell its end."""
        loop, request_id = pending.future.get_loop(), pending.metadata.internal_request_id
        result.add_done_callback(
            lambda _: loop.call_soon_threadsafe(self.completed, replica_id, request_id)
        )

    # What Ray tells.

    def sync(self, replicas: Sequence[Any]) -> None:
        """These are the replicas now."""
        try:
            self._sync(replicas)
            self._exchange.keep_up()
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
            if (told := signals_of(replica)) != self._signals.get(name):
                self._signals[name] = told
                if (signals := told[0]) is not None:
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
        lost = [it for it, (place, _, _, _) in self._bookings.items() if place.address == name]
        for request_id in lost:
            del self._bookings[request_id]

    def completed(self, replica_id: Any, request_id: str) -> None:
        """A request is over. Ray says it too of a replica that only turned the request away, while
        the request has been picked its next place already.
        """
        name = replica_id.to_full_id_str()
        for key in self._keys.all_of(request_id):
            booking = self._bookings.get(key)
            if booking is None:
                continue
            decision, future, _, _ = booking
            if future not in self._waiting and decision.address == name:
                del self._bookings[key]
                self._keys.forget(request_id, key)
                self._over.add(future)
                self.router.finish(decision)
                return

    def _cordon(self, replicas: Iterable[str]) -> None:
        """These get no new requests, unless there are no others."""
        self._cordoned = frozenset(replicas)

    # What an ingress router asks, from another thread than Ray's: it only reads.

    def usual_options(self) -> dict[str, Any]:
        """The options that a request gets unless it says otherwise, of which the caller may change
        its copy.
        """
        options = dict(self._usual)
        if self._cordoned:
            options["allowed"] = self.in_use()
        return options

    def replica(self, name: str) -> Any:
        """A replica as Ray has it; None where it is gone."""
        return self._replicas.get(name)

    def in_use(self) -> list[str]:
        """Those that may get requests: all that are there, where all are cordoned."""
        names = list(self._replicas)
        return [name for name in names if name not in self._cordoned] or names

    # What is shown.

    def tell_metrics(self) -> None:
        """Brings Ray's metrics up to date."""
        self._metrics.tell(self.counters())

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
            "waiting": sum(it[1] in self._waiting for it in list(self._bookings.values())),
            "cordoned": len(self._cordoned),
            "exchange": self._exchange.counters(),
            "pick_cpu_us": self._pick_cpu_ns / 1e3 / max(self._timed_picks, 1),
            "tokenizer": NO_TEXTS if self.texts is None else self.texts.counters(),
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
        self._exchange.close()
        if self.texts is not None:
            self.texts.close()
        self.router.close()


def full_id(replica: Any) -> str:
    """The name of a replica that no other has, which is its endpoint's address."""
    name: str = replica.replica_id.to_full_id_str()
    return name
