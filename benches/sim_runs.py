"""Runs of the simulator, and policies compared in them, paired by seed."""

from __future__ import annotations

import json
import math
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Two-sided 95 % points of Student's t, by degrees of freedom.
STUDENT = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 9: 2.26}

Runs = dict[str, dict[int, dict[str, float]]]


def simulate(binary: Path, arguments: list[str]) -> Runs:
    """Runs the simulator; the summaries by policy and seed."""
    command = [str(binary), "sim", "--json", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    runs: Runs = {}
    for line in output.splitlines():
        run = json.loads(line)
        runs.setdefault(run["policy"], {})[run["seed"]] = run
    return runs


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def of(runs: dict[int, dict[str, float]], figure: str) -> list[float]:
    return [runs[seed][figure] for seed in sorted(runs)]


@dataclass(frozen=True)
class Comparison:
    """A policy against the best of its rivals: the one with the most requests in SLO on average."""

    ratio: float
    margin: float
    rival: str
    ours: dict[int, dict[str, float]]
    theirs: dict[int, dict[str, float]]

    def means(self, figure: str) -> tuple[float, float]:
        return mean(of(self.ours, figure)), mean(of(self.theirs, figure))


def against_best(ours: dict[int, dict[str, float]], rivals: Runs) -> Comparison:
    """Ratio of in-SLO requests, paired by seed, with a 95 % interval."""
    best = max(rivals, key=lambda policy: mean(of(rivals[policy], "in_slo")))
    pairs = zip(of(ours, "in_slo"), of(rivals[best], "in_slo"), strict=True)
    ratios = [mine / max(theirs, 1.0) for mine, theirs in pairs]
    spread = math.sqrt(sum((it - mean(ratios)) ** 2 for it in ratios) / max(len(ratios) - 1, 1))
    margin = STUDENT.get(len(ratios) - 1, 1.96) * spread / math.sqrt(len(ratios))
    return Comparison(mean(ratios), margin, best, ours, rivals[best])


def cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
