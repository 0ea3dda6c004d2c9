"""A decision log run again."""

from os import PathLike
from typing import final

@final
class ReplayReport:
    """What running a decision log again gave."""

    @property
    def inputs(self) -> int:
        """Inputs in the log."""

    @property
    def decisions(self) -> int:
        """Decisions among what they led to."""

    @property
    def mismatches(self) -> int:
        """Entries whose outcome differs in any bit."""

    @property
    def identical(self) -> bool:
        """Whether there are decisions to compare, none differs, and no entry is missing."""

    @property
    def lost(self) -> int:
        """Entries that the writer could not keep up with; a replay past one means nothing."""

    @property
    def complete(self) -> bool:
        """Whether the log ended in order; one of a router that was never closed is cut off."""

    @property
    def first_mismatch(self) -> int | None:
        """Number of the first entry that differs, from 0."""

def replay(path: str | PathLike[str]) -> ReplayReport:
    """Runs a recorded decision log through a new brain and compares every outcome, bit by bit.

    Raises :class:`ReplayError` for a file that is not a log, or one that was written under other
    rules; :meth:`Workload.from_decision_log` reads those too.
    """
