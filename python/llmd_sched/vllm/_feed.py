"""What a stat logger publishes, taken into a router."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Mapping
from typing import Any

from llmd_sched._core import Router
from llmd_sched._errors import MissingDependencyError
from llmd_sched._types import EndpointRef

logger = logging.getLogger("llmd_sched.vllm")

MAX_MESSAGE_BYTES = 1 << 20
# How long `close` may take to be seen.
POLL_MS = 100


class SignalFeed:
    """Follows what the ranks of one engine say of themselves: :meth:`llmd_sched.Router.report`.

    ``address`` is where the engine's ``signals`` are published, as this process reaches it, such as
    ``"tcp://10.0.0.1:5600"``; ``endpoints`` has the router's endpoint of each rank. A message that
    cannot be is counted and passed over. Needs pyzmq (:class:`llmd_sched.MissingDependencyError`).
    Close it, or use it in a ``with`` statement.
    """

    def __init__(self, router: Router, address: str, endpoints: Mapping[int, EndpointRef]) -> None:
        try:
            import zmq
        except ImportError as absent:
            raise MissingDependencyError(
                f"SignalFeed reads with pyzmq ({absent}): pip install pyzmq"
            ) from absent
        self._router = router
        self._endpoints = dict(endpoints)
        self._reports = 0
        self._bad_messages = 0
        self._is_over = threading.Event()
        self._socket: Any = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE_BYTES)
        self._socket.setsockopt(zmq.SUBSCRIBE, b"")
        try:
            self._socket.connect(address)
        except zmq.ZMQError:
            self._socket.close()
            raise
        self._thread = threading.Thread(target=self._follow, name="llmd-signals", daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._is_over.is_set():
            if self._socket.poll(POLL_MS):
                self.take(self._socket.recv())
        self._socket.close()

    def take(self, message: bytes) -> None:
        """Takes in one message."""
        try:
            rank, signals = json.loads(message)
            endpoint = self._endpoints.get(rank)
            if endpoint is None:
                raise ValueError(f"no endpoint is known of rank {rank!r}")
            self._router.report(endpoint, **signals)
            self._reports += 1
        except Exception as failed:
            # It comes from outside, and the thread must outlive it.
            self._bad_messages += 1
            if self._bad_messages == 1:
                logger.warning("signals are passed over: %s", failed)

    def counters(self) -> dict[str, int]:
        """``reports`` taken in and ``bad_messages`` passed over."""
        return {"reports": self._reports, "bad_messages": self._bad_messages}

    def close(self) -> None:
        """Follows no longer."""
        self._is_over.set()
        self._thread.join()

    def __enter__(self) -> SignalFeed:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
