"""Ray as the one who plays the runs of a sweep. Imported only where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llmd_sched._core import Workload
from llmd_sched._errors import MissingDependencyError
from llmd_sched.sim._executors import Executor, Playable


def on_ray(options: Mapping[str, Any]) -> Executor:
    """A task of one core for each run, on the cluster that this process is connected to, or else
    on one that ``ray.init(**options)`` connects to or starts, and leaves afterwards.
    """
    try:
        import ray
    except ImportError as absent:
        raise MissingDependencyError(
            "sweep(ray=...) needs Ray: pip install 'llmd-sched[ray]', or leave ray out to play on "
            "threads"
        ) from absent

    def play(
        workload: Workload, cases: Sequence[Playable], one_more: Callable[[], None]
    ) -> list[dict[str, Any]]:
        is_ours = not ray.is_initialized()
        if is_ours:
            ray.init(**{"log_to_driver": False, **options})
        try:
            task = ray.remote(num_cpus=1)(_play)
            # Put once: every task reads the arrays where the object store has them.
            shared = ray.put(workload)
            references = [task.remote(case, shared) for case in cases]
            unfinished = references
            try:
                while unfinished:
                    finished, unfinished = ray.wait(unfinished)
                    ray.get(finished)
                    one_more()
            except BaseException as failed:
                for reference in unfinished:
                    ray.cancel(reference)
                if isinstance(failed, ray.exceptions.RayTaskError):
                    raise failed.cause from None
                raise
            rows: list[dict[str, Any]] = ray.get(references)
            return rows
        finally:
            if is_ours:
                ray.shutdown()

    return play


def _play(case: Playable, workload: Workload) -> dict[str, Any]:
    return case.play(workload)
