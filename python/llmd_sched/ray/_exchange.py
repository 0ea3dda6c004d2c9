"""What keeps this process's router of a deployment in touch with the cluster.

What routers tell each other they send themselves, each over its own socket and without Python
(:meth:`llmd_sched.Router.tell_peers`); here they are told of each other's addresses, and of
replicas that are out of use. Ray's metrics are brought up to date meanwhile. Nothing that fails
here keeps a request from being routed: it is counted, and tried again.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswerError
from typing import Any

from llmd_sched._core import Router
from llmd_sched._errors import RouterClosedError
from llmd_sched.ray._metrics import PERIOD_S
from llmd_sched.ray._rendezvous import PATIENCE_S, rendezvous

# An answer that does not come by then never does.
ANSWER_S = PATIENCE_S + 10.0
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0


def router_name() -> str:
    """A name that no router has or had."""
    return f"{socket.gethostname()[:64]}:{os.getpid()}:{os.urandom(6).hex()}"


class Exchange:
    """Keeps a router in touch with those of the same deployment, from a thread of its own."""

    def __init__(
        self,
        deployment: str,
        router: Router,
        interval_ms: float,
        *,
        cordoned: Callable[[Iterable[str]], None],
        look: Callable[[], None],
    ) -> None:
        """``cordoned`` is told of the replicas that are out of use, ``look`` called every ten
        seconds: both from the thread.
        """
        self._deployment = deployment
        self._router = router
        self._interval_ms = interval_ms
        self._tell_cordoned = cordoned
        self._look = look
        self._cordoned: list[str] = []
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        # Where others hear it: the same, whatever becomes of the rendezvous. Empty: nowhere.
        self._address = ""
        self._meetings = 0
        self._failures = 0
        self._last_error: str | None = None

    def keep_up(self) -> None:
        """Sees to it that the thread runs; returns at once."""
        if self._closed.is_set():
            return
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="llmd-exchange", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Ends it, without waiting."""
        self._closed.set()

    def counters(self) -> dict[str, Any]:
        """As :func:`llmd_sched.ray.counters` says."""
        peers = self._router.stats()["peers"]
        return {
            **peers,
            "meetings": self._meetings,
            "failures": self._failures,
            "last_error": self._last_error or peers["last_error"],
        }

    def _run(self) -> None:
        # Whoever routes for Ray has it; the import of one that is not used takes a second.
        if (ray := sys.modules.get("ray")) is None:
            return
        in_a_row = 0
        self._address = ""
        # Where Ray was shut down, any call would start a cluster. `keep_up` starts this again.
        while ray.is_initialized() and not self._closed.is_set():
            before = self._meetings
            try:
                self._meet()
                return
            except RouterClosedError:
                return
            except Exception as failed:
                self._note(failed)
            in_a_row = 1 if self._meetings > before else in_a_row + 1
            self._closed.wait(min(FIRST_WAIT_S * 2 ** (in_a_row - 1), LONGEST_WAIT_S))

    def _meet(self) -> None:
        """Meets the others until something fails, or this is closed."""
        import ray

        if self._interval_ms > 0 and not self._address:
            host = ray.util.get_node_ip_address()
            self._address = self._router.tell_peers(
                f"tcp://[{host}]:0" if ":" in host else f"tcp://{host}:0",
                interval_ms=self._interval_ms,
            )
        name = self._router.config()["fleet"]["router"]
        there, seen = rendezvous(), ""
        while not self._closed.is_set():
            # Not `ray.get`, which warns where it is called in an actor that has an event loop.
            answer = there.meet.remote(
                self._deployment, name, self._address, self._cordoned, seen
            ).future()
            seen, addresses, self._cordoned = self._wait(answer)
            self._tell_cordoned(self._cordoned)
            if self._interval_ms > 0:
                self._router.hear_peers(addresses)
            self._meetings += 1
        there.leave.remote(self._deployment, name)

    def _wait(self, answer: Future[Any]) -> Any:
        """The answer; looks from time to time until it comes."""
        until_s = time.monotonic() + ANSWER_S
        while True:
            try:
                return answer.result(timeout=PERIOD_S)
            except NoAnswerError:
                if time.monotonic() >= until_s:
                    raise
            try:
                self._look()
            except Exception as failed:
                self._note(failed)

    def _note(self, failed: Exception) -> None:
        self._failures += 1
        self._last_error = f"{type(failed).__name__}: {failed}"
