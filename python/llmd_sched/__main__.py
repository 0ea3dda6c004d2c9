"""``python -m llmd_sched``: the same command tree as the console script ``llmd-sched``."""

import sys

from llmd_sched._cli import main

if __name__ == "__main__":
    sys.exit(main())
