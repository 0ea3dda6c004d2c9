"""What a run came to: figures, and a row for each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from llmd_sched.sim._arrow import table_of

if TYPE_CHECKING:
    import pyarrow as pa

FATES = ("served", "rejected", "refused", "unserved")
"""Names of the numbers in the column ``fate``: answered in full; refused by the router; refused by
the engine because it fits no KV cache (not counted); still waiting or running at the end."""


@dataclass(frozen=True)
class Summary:
    """Figures over the requests that are counted. Percentiles are of served requests.

    - ``requests``, ``served``, ``in_slo``: counted; served; served within both objectives.
    - ``slo_attainment``, ``goodput_requests_per_s``: ``in_slo`` as a share of ``requests``, and per
      second of the time in which those came.
    - ``long_prompts``, ``slo_attainment_long_prompts``: requests of more than 20,000 prompt tokens,
      and the share of them in SLO; 1 where there are none.
    - ``hit_ratio``, ``hit_ratio_with_host``: prompt tokens found on the GPU, of all served; host
      tier included.
    - ``longest_wait_ms``: for a first token; where none came, up to the end, but for the rejected.
    - ``ttft_mape``, ``tpot_mape``, ``tpot_p50_mape``: mean relative error of what the router
      predicted at the decision, past the first 500 requests; ``*_p90_coverage``: share that its
      90th percentiles covered; ``*_hindsight_error``: what its models are off by once all that a
      request met is known, None where none has learned; ``drift_alarms``: all false, engines of a
      simulation stay as they are.
    - ``imbalance``: tokens prefilled by the busiest engine over the mean.
    - ``preemptions``: running requests that were sent back to the queue; ``retries``: connections
      that broke because an engine died; both with warm-up.
    - ``fairness``: Jain's index of the sessions' shares in SLO; 1 where all fare alike.
    - ``replica_hours``: replicas times the hours that they were there, while the requests counted
      came; ``scale_orders``: times that an autoscaler changed how many there should be.
    - ``usd_per_million_tokens``: of prompts and answers in SLO.
    """

    requests: int
    served: int
    in_slo: int
    slo_attainment: float
    goodput_requests_per_s: float
    long_prompts: int
    slo_attainment_long_prompts: float
    hit_ratio: float
    hit_ratio_with_host: float
    ttft_p50_ms: float
    ttft_p90_ms: float
    ttft_p99_ms: float
    tpot_p50_ms: float
    tpot_p99_ms: float
    longest_wait_ms: float
    ttft_mape: float
    tpot_mape: float
    tpot_p50_mape: float
    ttft_p90_coverage: float
    tpot_p90_coverage: float
    ttft_hindsight_error: float | None
    tpot_hindsight_error: float | None
    drift_alarms: int
    imbalance: float
    preemptions: int
    retries: int
    fairness: float
    replica_hours: float
    scale_orders: int
    usd_per_million_tokens: float


@dataclass(frozen=True)
class Result:
    """One run.

    - ``rows``: numpy columns, one element a request in order of arrival. ``prompt`` and
      ``session`` are positions in the workload, ``fate`` a number of :data:`FATES`, ``engine`` -1
      where there was none; times (``arrived_ms``, ``sent_ms``, ``first_token_ms``,
      ``finished_ms``) are of the virtual clock and NaN where they never came; ``hit_tokens`` is
      what the engine found, ``matched_tokens`` what the router believed.
    - ``engines``: numpy columns of counters, one element an engine.
    - ``ended_ms``: when the last event was.

    Libraries that speak Arrow's PyCapsule interface (polars, DuckDB, pandas) take a result as a
    table of its rows, where pyarrow is installed.
    """

    summary: Summary
    rows: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    engines: Mapping[str, npt.NDArray[np.uint64]] = field(repr=False)
    ended_ms: float

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table that shares the numbers' memory; needs pyarrow.

        ``fate`` is a dictionary of :data:`FATES`, and NaN stays NaN. Raises
        :class:`~llmd_sched.MissingDependencyError`.
        """
        return table_of(self.rows, {"fate": FATES})

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """The rows, as Arrow's C stream interface."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)
