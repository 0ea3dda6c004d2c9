"""The last lines of several benches as one: ``python benches/kv/merge.py OUTPUT...``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    merged: dict[str, object] = {}
    for output in sys.argv[1:]:
        lines = [it for it in Path(output).read_text().splitlines() if it.startswith("BENCH ")]
        merged |= json.loads(lines[-1].removeprefix("BENCH "))
    print("BENCH", json.dumps(merged))
