"""How far a sweep is, on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """Counts what is done: a bar where tqdm is installed, else a line that is written over.

    ``shown`` None shows it only to a terminal.
    """

    def __init__(self, total: int, *, shown: bool | None) -> None:
        self._total, self._done = total, 0
        self._shown = sys.stderr.isatty() if shown is None else shown
        self._bar: Any = None
        if self._shown:
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit="run", file=sys.stderr)

    def one_more(self) -> None:
        """One more is done."""
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif self._shown:
            print(f"\r{self._done} of {self._total} runs", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown:
            print(file=sys.stderr)
