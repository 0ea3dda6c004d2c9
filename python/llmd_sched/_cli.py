"""The console script ``llmd-sched``: the same command tree as the binary of that name."""

import signal
import sys

from llmd_sched import _core


def main() -> int:
    """Runs the command line in ``sys.argv`` and returns its exit status."""
    # Commands that have something to end catch it themselves; Python would interrupt besides.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _core.run_cli(sys.argv)
