"""The gateway for programs that do nothing else."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue

from llmd_sched._core import Gateway
from llmd_sched._errors import LlmdError
from llmd_sched._types import ConfigSource

_log = logging.getLogger("llmd_sched")

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(config: ConfigSource, *, ready: Callable[[Gateway], object] | None = None) -> None:
    """Serves OpenAI's API in front of engines until a signal: what ``llmd-sched serve`` does.

    ``config`` is that of :class:`Gateway`; ``ready`` is called with the gateway once it serves. On
    ``SIGTERM`` or ``SIGINT`` it takes no new requests, waits for the answers under way, at most
    ``drain_ms``, and returns; a second one does what it would have done without this. On ``SIGHUP`` it
    reads the file anew, and logs why where that cannot be. Signals are as they were afterwards.

    Raises as :class:`Gateway` does, and :class:`RuntimeError` outside the main thread, where Python
    handles no signals: use :class:`Gateway` there.

    >>> import llmd_sched, signal
    >>> def ready(gateway):
    ...     print(gateway.endpoints())
    ...     signal.raise_signal(signal.SIGTERM)
    >>> llmd_sched.serve({"listen": "127.0.0.1:0", "endpoints": []}, ready=ready)
    []
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "serve() waits for signals, which only the main thread gets: use Gateway(config) here"
        )
    # Its `put` may be called where it is interrupted itself, which is what handlers need.
    came: SimpleQueue[int | None] = SimpleQueue()
    before = {it: signal.signal(it, lambda number, _: came.put(number)) for it in SIGNALS}
    try:
        gateway = Gateway(config)
        try:
            if ready is not None:
                ready(gateway)
            while came.get() == signal.SIGHUP:
                _reload(gateway)
            again = _drain(gateway, came)
        finally:
            gateway.close()
    finally:
        for number, handler in before.items():
            # None is one that Python did not set and cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
    if again is not None:
        signal.raise_signal(again)


def _reload(gateway: Gateway) -> None:
    try:
        gateway.reload()
        _log.info("the configuration was read again")
    except LlmdError as why:
        _log.error("the configuration stays as it was: %s", why)


def _drain(gateway: Gateway, came: SimpleQueue[int | None]) -> int | None:
    """Drains it; returns the signal that came meanwhile, if one did."""

    def drain() -> None:
        gateway.drain()
        came.put(None)

    # By another thread, since this one is the one that hears of signals.
    threading.Thread(target=drain, name="llmd-drain", daemon=True).start()
    while (number := came.get()) == signal.SIGHUP:
        pass
    return number
