"""What a sweep came to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from llmd_sched.sim._arrow import table_of

if TYPE_CHECKING:
    import pyarrow as pa


SHOWN = (
    *("world", "policy", "seed", "slo_attainment", "goodput_requests_per_s"),
    *("hit_ratio_with_host", "ttft_p50_ms", "ttft_p99_ms"),
)
"""Columns that a table prints; it holds more."""


class Table(Sequence[dict[str, Any]]):
    """Runs, a mapping each; :attr:`columns` are the same as numpy arrays.

    >>> from llmd_sched.sim import Table
    >>> table = Table(
    ...     [
    ...         {"policy": "a", "seed": 1, "slo_attainment": 0.5},
    ...         {"policy": "a", "seed": 2, "slo_attainment": 1.0},
    ...         {"policy": "b", "seed": 1, "slo_attainment": 0.7},
    ...     ]
    ... )
    >>> table.where(policy="a").mean("slo_attainment")
    0.75
    """

    def __init__(self, runs: Sequence[dict[str, Any]]) -> None:
        self._runs = list(runs)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, at: slice) -> Table: ...
    def __getitem__(self, at: int | slice) -> dict[str, Any] | Table:
        """A run, or a table of some."""
        return Table(self._runs[at]) if isinstance(at, slice) else self._runs[at]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._runs)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Table) and self._runs == other._runs

    __hash__ = None  # type: ignore[assignment]

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """A numpy array for each column, in the order of the runs."""
        names = self._runs[0] if self._runs else ()
        return {name: np.array([run[name] for run in self._runs]) for name in names}

    def where(self, **values: Any) -> Table:
        """The runs that have these values in these columns."""
        return Table([run for run in self._runs if values.items() <= run.items()])

    def mean(self, column: str) -> float:
        """The mean of a column over the runs."""
        return float(np.mean([run[column] for run in self._runs]))

    def to_arrow(self) -> pa.Table:
        """An Arrow table; needs pyarrow. Raises :class:`~llmd_sched.MissingDependencyError`."""
        return table_of(self.columns)

    def __repr__(self) -> str:
        names = [name for name in SHOWN if self._runs and name in self._runs[0]]
        lines = [names, *([_shown(run[name]) for name in names] for run in self._runs)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
            for line in lines
        )


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
