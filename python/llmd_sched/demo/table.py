"""The result, one column a routing profile."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True)
class Column:
    """What one profile reached."""

    profile: str
    requests: int
    failures: int
    hit_tokens: int
    prompt_tokens: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    requests_per_endpoint: list[int]

    def as_dict(self) -> dict[str, object]:
        """For ``--json``."""
        return asdict(self)


def percentile_ms(values_s: list[float], percent: float) -> float:
    """A percentile in milliseconds; NaN where nothing was measured."""
    return float(np.percentile(values_s, percent) * 1e3) if values_s else float("nan")


def render(columns: list[Column]) -> str:
    """The table as text: rows are measures, columns are profiles."""
    rows: list[tuple[str, list[str]]] = [
        ("", [column.profile for column in columns]),
        ("prefix-hit tokens", [f"{column.hit_tokens:,}" for column in columns]),
        (
            "prefix-hit share",
            [f"{column.hit_tokens / max(1, column.prompt_tokens):.1%}" for column in columns],
        ),
        ("TTFT p50, ms", [f"{column.ttft_p50_ms:.0f}" for column in columns]),
        ("TTFT p99, ms", [f"{column.ttft_p99_ms:.0f}" for column in columns]),
        ("requests / endpoint", [_spread(column.requests_per_endpoint) for column in columns]),
        ("failed requests", [str(column.failures) for column in columns]),
    ]
    head = max(len(name) for name, _ in rows)
    widths = [max(len(cells[i]) for _, cells in rows) for i in range(len(columns))]
    return "\n".join(
        "  ".join([name.ljust(head), *(c.rjust(w) for c, w in zip(cells, widths, strict=True))])
        for name, cells in rows
    )


def _spread(counts: list[int]) -> str:
    return " ".join(map(str, counts))
