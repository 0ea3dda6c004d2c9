"""Every example in a docstring does what it says."""

from __future__ import annotations

import doctest

import llmd_sched
import pytest
from llmd_sched import _core, _remote, asgi, kv, moe, ray, sim
from stub import declarations

DOCSTRINGS = {
    "llmd_sched": llmd_sched.__doc__,
    "asgi.app": asgi.app.__doc__,
    "attach": _remote.attach.__doc__,
    "kv": kv.__doc__,
    "moe": moe.__doc__,
    "serve": llmd_sched.serve.__doc__,
    "ray.Settings": ray.Settings.__doc__,
    "sim": sim.__doc__,
    **{f"sim.{name}": getattr(sim, name).__doc__ for name in sim.__all__ if name != "Workload"},
    "sim.World.at_rate": sim.World.at_rate.__doc__,
    **{it.qualified_name: it.at_runtime(_core).__doc__ for it in declarations()},
}
EXAMPLES = [
    test
    for name, docstring in DOCSTRINGS.items()
    if (test := doctest.DocTestParser().get_doctest(docstring or "", {}, name, None, None)).examples
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda it: it.name)
def test_example(example: doctest.DocTest) -> None:
    report: list[str] = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)


def test_the_main_classes_have_examples() -> None:
    shown = {test.name for test in EXAMPLES}
    assert {"llmd_sched", "Router", "Router.route", "Decision", "Explanation"} <= shown
    assert {"moe", "ExpertMap", "place_experts", "advise_experts", "RankScorer"} <= shown
    assert {"sim", "sim.run", "sim.sweep", "sim.World", "sim.Table", "Workload"} <= shown
