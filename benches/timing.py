"""CPU time of calls, with contenders that take turns in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

BATCHES = 9


class Cpu(NamedTuple):
    """CPU microseconds of a call: of the thread that made it, and of the whole process.

    They differ where a library works on threads of its own.
    """

    thread_us: float
    process_us: float


class Stopwatch:
    """Adds up what is spent between ``start`` and ``stop``."""

    def __init__(self) -> None:
        self._thread_ns = self._process_ns = 0
        self._started = (0, 0)

    def start(self) -> None:
        self._started = (time.thread_time_ns(), time.process_time_ns())

    def stop(self) -> None:
        thread_ns, process_ns = time.thread_time_ns(), time.process_time_ns()
        self._thread_ns += thread_ns - self._started[0]
        self._process_ns += process_ns - self._started[1]

    def of(self, calls: int) -> Cpu:
        return Cpu(self._thread_ns / calls / 1000, self._process_ns / calls / 1000)


def race(contenders: dict[str, Callable[[], Cpu]]) -> dict[str, list[Cpu]]:
    """Runs a batch of each in turn, after one of each that does not count."""
    costs: dict[str, list[Cpu]] = {name: [] for name in contenders}
    for batch in range(BATCHES + 1):
        for name, run in contenders.items():
            cost = run()
            if batch > 0:
                costs[name].append(cost)
    return costs


def median_us(costs: list[Cpu]) -> float:
    return statistics.median(cost.thread_us for cost in costs)


def thread_ratio(ours: list[Cpu], theirs: list[Cpu]) -> float:
    """The rival's cost over ours: the median of the batches' own ratios."""
    return statistics.median(b.thread_us / a.thread_us for a, b in zip(ours, theirs, strict=True))


def process_ratio(ours: list[Cpu], theirs: list[Cpu]) -> float:
    return statistics.median(b.process_us / a.process_us for a, b in zip(ours, theirs, strict=True))


def batch(
    calls: int,
    call: Callable[[int], object],
    clean_up: Callable[[list[object]], None] = list.clear,
) -> Cpu:
    """Mean cost of ``call(0)``, ``call(1)``, ...

    What the calls return is handed to ``clean_up`` off the clock, every 64 calls.
    """
    stopwatch = Stopwatch()
    for first in range(0, calls, 64):
        part = range(first, min(first + 64, calls))
        stopwatch.start()
        results = [call(number) for number in part]
        stopwatch.stop()
        clean_up(results)
    return stopwatch.of(calls)
