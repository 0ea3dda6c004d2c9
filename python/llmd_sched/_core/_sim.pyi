"""The simulator; :mod:`llmd_sched.sim` is its face."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, final

import numpy as np
import numpy.typing as npt
from llmd_sched._types import ConfigSource
from typing_extensions import Self

@final
class Workload:
    """Who asks for what, and when: requests in sessions, and the keys of their blocks.

    One element a request, session after session:

    - ``at_ms``: float64; arrival from the beginning, or, where ``closed_loop``, the pause between
      the end of the session's request before and this one.
    - ``prompt_tokens``, ``output_tokens``: lengths, each at least 1.
    - ``keys``: 64-bit keys of each prompt's full blocks, in order; equal keys are equal prefixes
      (:func:`llmd_sched.block_keys` makes them of tokens). A sequence of arrays, one a request; or
      one flat array with ``key_offsets``, where each request's keys begin, and the end. Keys past
      ``prompt_tokens // block_size`` are dropped.
    - ``session_offsets``: where each session's requests begin, and the end; by default every
      request is a session of its own.
    - ``block_size``: tokens that a key stands for; simulated engines have blocks of that size.

    Immutable, compares by value, and pickles as its arrays. Raises :class:`WorkloadError`, naming
    the argument and the row.

    >>> from llmd_sched.sim import Workload
    >>> Workload([0.0, 50.0], [40, 40], [8, 8], keys=[[1, 2], [1, 3]], block_size=16)
    Workload(2 requests in 2 sessions, block_size=16)
    """

    def __new__(
        cls,
        at_ms: npt.ArrayLike,
        prompt_tokens: npt.ArrayLike,
        output_tokens: npt.ArrayLike,
        keys: npt.ArrayLike | Sequence[npt.ArrayLike],
        key_offsets: npt.ArrayLike | None = None,
        *,
        session_offsets: npt.ArrayLike | None = None,
        block_size: int = 16,
        closed_loop: bool = False,
    ) -> Self: ...
    @staticmethod
    def from_mooncake(source: str | PathLike[str] | bytes) -> Workload:
        """A trace in Mooncake's format, the path of one or its bytes: an open loop.

        A line is ``{"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [..]}``,
        with a number for each block of 512 tokens. Raises :class:`WorkloadError`, naming the line.

        >>> from llmd_sched.sim import Workload
        >>> line = b'{"timestamp": 0, "input_length": 900, "output_length": 5, "hash_ids": [7, 8]}'
        >>> Workload.from_mooncake(line)
        Workload(1 requests in 1 sessions, block_size=512)
        """

    @staticmethod
    def from_agent_sessions(source: str | PathLike[str] | bytes) -> Workload:
        """Sessions of coding agents in kv-cache-tester's format, a session a line: a closed loop.

        Raises :class:`WorkloadError`, naming the line.
        """

    @staticmethod
    def from_prompt_sessions(source: str | PathLike[str] | bytes) -> Workload:
        """Agent sessions in LMCache's format, whose block numbers mean the same in all sessions: a
        closed loop.

        Raises :class:`WorkloadError`, naming the line.
        """

    @staticmethod
    def from_decision_log(
        path: str | PathLike[str], *, assumed_output_tokens: int | None = None
    ) -> Workload:
        """What a router was asked, from the log that ``Router(record=...)`` wrote: an open loop.

        Requests that were refused, cancelled or unfinished at the log's end are in it too. How much
        they would have generated no log can tell: ``assumed_output_tokens``, by default the mean of
        the others; :attr:`log_gaps` counts them. Models, adapters, labels, priorities and
        objectives are not part of a workload: every simulated engine serves every request.

        Raises :class:`ReplayError` for a file that is not a log, :class:`WorkloadError` where there
        is nothing to simulate.
        """

    def with_tool_calls(self, *, seed: int = 1) -> Workload:
        """The same with one or two tool calls after each request: short inputs behind 24 long
        system prompts. Of open loops only; raises :class:`WorkloadError` for others.
        """

    @property
    def block_size(self) -> int:
        """Tokens that a key stands for."""

    @property
    def closed_loop(self) -> bool:
        """Whether ``at_ms`` are pauses between the turns of sessions."""

    @property
    def sessions(self) -> int:
        """How many sessions."""

    @property
    def log_gaps(self) -> dict[str, Any] | None:
        """Of a decision log, what it left open; None for other workloads, and once pickled.

        ``assumed_outputs``: requests whose end is not in it; ``estimated_prompts``: requests whose
        prompt was text; ``lost_entries``: turns that its writer could not keep up with;
        ``complete``: whether it ended in order.
        """

    @property
    def at_ms(self) -> npt.NDArray[np.float64]:
        """Arrivals, or pauses, a copy; likewise the other columns."""

    @property
    def prompt_tokens(self) -> npt.NDArray[np.uint32]:
        """Lengths of the prompts."""

    @property
    def output_tokens(self) -> npt.NDArray[np.uint32]:
        """Tokens that each request generates."""

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """Keys of all requests' full blocks, one after the other."""

    @property
    def key_offsets(self) -> npt.NDArray[np.uint64]:
        """Where each request's keys begin, and the end."""

    @property
    def session_offsets(self) -> npt.NDArray[np.uint64]:
        """Where each session's requests begin, and the end."""

    def infinite_cache_hit_ratio(self) -> float:
        """Share of all prompt tokens that one cache without bounds, shared by all, would hold.

        >>> from llmd_sched.sim import Workload
        >>> Workload([0, 1], [40, 40], [8, 8], keys=[[1, 2], [1, 3]]).infinite_cache_hit_ratio()
        0.2
        """

    def __len__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]: ...

def simulate(workload: Workload, world: Mapping[str, Any], config: ConfigSource) -> dict[str, Any]:
    """Plays a workload in a world, without the GIL: what :func:`llmd_sched.sim.run` calls.

    ``world`` is :meth:`llmd_sched.sim.World.document`, ``config`` what a :class:`Router` takes.
    Returns ``summary``, ``rows``, ``engines`` and ``ended_ms``. Raises :class:`ConfigError`.
    """

def builtin_policies() -> list[str]:
    """Names of the policies that need no configuration, ``default`` among them.

    >>> from llmd_sched.sim import builtin_policies
    >>> {"round-robin", "lmetric", "default"} <= set(builtin_policies())
    True
    """

def capacity_requests_per_s(workload: Workload, world: Mapping[str, Any]) -> float:
    """Requests a second that a world completes when all of a workload comes at once: what
    :func:`llmd_sched.sim.capacity` calls. Raises :class:`ConfigError`.
    """
