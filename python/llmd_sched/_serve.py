"""The gateway for programs that do nothing else."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from llmd_sched._core import Gateway
from llmd_sched._errors import LlmdError
from llmd_sched._types import ConfigSource

_log = logging.getLogger("llmd_sched")

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# No signal has this number.
_DRAINED = 0


def serve(config: ConfigSource, *, ready: Callable[[Gateway], object] | None = None) -> None:
    """Serves OpenAI's API in front of engines until a signal: what ``llmd-sched serve`` does.

    ``config`` is that of :class:`Gateway`; ``ready`` is called with the gateway once it serves. On
    ``SIGTERM`` or ``SIGINT`` it takes no new requests, waits for the answers under way, at most
    ``drain_ms``, and returns; a second one does what it would have done without this. On ``SIGHUP``
    it reads the file anew, and logs why where that cannot be. Signals are as they were afterwards.

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
    with _Signals() as signals, _closed_at_the_end(Gateway(config)) as gateway:
        if ready is not None:
            ready(gateway)
        while signals.next() == signal.SIGHUP:
            _reload(gateway)
        again = _drain(gateway, signals)
    if again != _DRAINED:
        signal.raise_signal(again)


class _Signals:
    """The numbers of signals as they come.

    By the descriptor that Python writes them to from any thread: a signal that the kernel gives to
    another thread does not wake the main one, and its handler would run when something else does.
    """

    def __enter__(self) -> _Signals:
        self._come, self._writes = socket.socketpair()
        self._writes.setblocking(False)
        self._wakeup_fd = signal.set_wakeup_fd(self._writes.fileno())
        self._handlers = {it: signal.signal(it, lambda *_: None) for it in _SIGNALS}
        return self

    def next(self) -> int:
        """The next of ours, or what was said."""
        while (number := self._come.recv(1)[0]) not in (*_SIGNALS, _DRAINED):
            pass
        return number

    def say(self, number: int) -> None:
        """Has the next one be this, from any thread."""
        self._writes.send(bytes([number]))

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            # None is one that Python did not set and cannot set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        signal.set_wakeup_fd(self._wakeup_fd)
        self._come.close()
        self._writes.close()


@contextmanager
def _closed_at_the_end(gateway: Gateway) -> Iterator[Gateway]:
    # Not drained, as a gateway is that is left: what failed or has been told twice does not wait.
    try:
        yield gateway
    finally:
        gateway.close()


def _reload(gateway: Gateway) -> None:
    try:
        gateway.reload()
        _log.info("the configuration was read again")
    except LlmdError as why:
        _log.error("the configuration stays as it was: %s", why)


def _drain(gateway: Gateway, signals: _Signals) -> int:
    """Drains it; returns the signal that came meanwhile, or that it is drained."""

    def drain() -> None:
        gateway.drain()
        # Nobody listens any more after a second signal.
        with suppress(OSError):
            signals.say(_DRAINED)

    # By another thread, since this one is the one that hears of signals.
    threading.Thread(target=drain, name="llmd-drain", daemon=True).start()
    while (number := signals.next()) == signal.SIGHUP:
        pass
    return number
