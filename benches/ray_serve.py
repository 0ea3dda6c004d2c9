"""What routing costs inside Ray Serve: `make bench-ray`.

Its parts, each of which says what its figures are: `ray_pick`, our own code alone, and
`ray_handle`, requests through handles of a real Ray; `ray_ingress`, requests through its HAProxy.
Prints a line BENCH {json} last.
"""

from __future__ import annotations

import argparse
import json

import ray_handle
import ray_ingress
import ray_pick

PARTS = (ray_pick, ray_handle, ray_ingress)


def main() -> None:
    """Measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=400, help="a router's share of a round")
    parser.add_argument("--rounds", type=int, default=61)
    asked = parser.parse_args()
    measured: dict[str, float] = {}
    for part in PARTS:
        measured |= part.figures(asked)
    rounded = {name: round(value, 3) for name, value in measured.items()}
    print("BENCH", json.dumps({"bench": "ray", **vars(asked), **rounded}))


if __name__ == "__main__":
    main()
