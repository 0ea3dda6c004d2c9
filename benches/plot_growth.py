"""Draws how costs grow, from the CSV that ``llmd-peers --growth`` writes: plot_growth.py CSV FOLDER

One SVG for each sweep (endpoints, depth, stored blocks): nanoseconds of a lookup and of a stored
block, and live bytes an entry, of every contender, on logarithmic axes.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("svg")
# The same CSV gives the same file: no random ids, no date.
matplotlib.rcParams["svg.hashsalt"] = "llmd-sched"
from matplotlib import pyplot  # noqa: E402

X_LABELS = {
    "endpoints": "endpoints",
    "depth": "blocks a prompt",
    "blocks": "blocks stored",
}
PANELS = {
    "lookup_ns": "CPU ns a lookup",
    "store_ns_per_block": "CPU ns a stored block",
    "bytes_per_entry": "live bytes a (block, endpoint)",
}
NAMES = {"ours": "llmd-sched", "crtc": "Dynamo CRTC", "kv_index": "smg kv-index"}
COLOURS = {"ours": "#0072b2", "crtc": "#d55e00", "kv_index": "#009e73"}


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    sweeps: dict[str, dict[str, list[dict[str, str]]]] = defaultdict(lambda: defaultdict(list))
    with source.open(newline="") as rows:
        for row in csv.DictReader(rows):
            sweeps[row["sweep"]][row["contender"]].append(row)
    for sweep, contenders in sweeps.items():
        path = folder / f"growth_{sweep}.svg"
        draw(sweep, contenders, path)
        print(path)


def draw(sweep: str, contenders: dict[str, list[dict[str, str]]], path: Path) -> None:
    figure, axes = pyplot.subplots(1, len(PANELS), figsize=(12, 3.6), layout="constrained")
    for axis, (column, label) in zip(axes, PANELS.items(), strict=True):
        for contender, rows in contenders.items():
            axis.loglog(
                [float(row["x"]) for row in rows],
                [float(row[column]) for row in rows],
                marker="o",
                markersize=4,
                label=NAMES[contender],
                color=COLOURS[contender],
            )
        axis.set_xlabel(X_LABELS[sweep])
        axis.set_title(label, fontsize="medium")
        axis.grid(visible=True, which="major", alpha=0.3)
    axes[0].legend()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    main()
