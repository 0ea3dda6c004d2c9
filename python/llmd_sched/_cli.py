"""The console script ``llmd-sched``: the same command tree as the binary of that name."""

import sys

from llmd_sched import _core


def main() -> int:
    """Runs the command line in ``sys.argv`` and returns its exit status."""
    return _core.run_cli(sys.argv)
