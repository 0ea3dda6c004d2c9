"""Who plays the runs of a sweep: threads of this process.

NOTE(perf): a run holds no GIL. Processes were tried: eight runs of 20,000 requests took 4.4 to 4.6
seconds of CPU time there and 3.6 to 3.9 on threads, since each process starts Python and gets a
copy of the workload (`benches/sweep.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Protocol


class Playable(Protocol):
    """A run that is to be made."""

    def play(self, shared: Any, /) -> Any:
        """Makes it from what all runs share."""


Executor = Callable[[Any, Sequence[Playable], Callable[[], None]], list[Any]]
"""Plays each case with what they share, calls the function after each, and returns what they gave
in the order of the cases. The first error ends it."""


def on_threads(threads: int | None) -> Executor:
    """So many runs at a time, by default one a core."""

    def play(shared: Any, cases: Sequence[Playable], one_more: Callable[[], None]) -> list[Any]:
        with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
            futures = [pool.submit(case.play, shared) for case in cases]
            try:
                for future in as_completed(futures):
                    future.result()
                    one_more()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return [future.result() for future in futures]

    return play
