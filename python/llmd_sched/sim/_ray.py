"""Ray as the one who plays the runs of a sweep. Imported only where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmd_sched._core import errand_run
from llmd_sched._errors import MissingDependencyError
from llmd_sched.sim._executors import Executor, Playable
from llmd_sched.sim._progress import Progress


def on_ray(options: Mapping[str, Any]) -> Executor:
    """A task of one core for each run, on the cluster that this process is connected to, or else
    on one that ``ray.init(**options)`` connects to or starts, and leaves afterwards.
    """
    try:
        import ray
    except ImportError as absent:
        raise MissingDependencyError(
            "there is no Ray to play on: pip install 'llmd-sched[ray]', or leave out `ray` to play "
            "on threads"
        ) from absent

    def play(shared: Any, cases: Sequence[Playable], one_more: Callable[[], None]) -> list[Any]:
        is_ours = not ray.is_initialized()
        if is_ours:
            ray.init(**{"log_to_driver": False, **options})
        try:
            task = ray.remote(num_cpus=1)(_play)
            # Put once: every task reads it where the object store has it.
            put = ray.put(shared)
            references = [task.remote(case, put) for case in cases]
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
            gave: list[Any] = ray.get(references)
            return gave
        finally:
            if is_ours:
                ray.shutdown()

    return play


def _play(case: Playable, shared: Any) -> Any:
    return case.play(shared)


@dataclass(frozen=True)
class _ErrandRun:
    """A run of the command line's; the errand is what all of them share."""

    number: int

    def play(self, errand: bytes) -> bytes:
        return errand_run(errand, self.number)


def play_errand(address: str, errand: bytes, runs: int) -> list[bytes]:
    """Makes the runs of ``llmd-sched sim --ray=ADDRESS``, which calls this."""
    executor = on_ray({"address": address} if address else {})
    cases = [_ErrandRun(number) for number in range(runs)]
    with Progress(runs, shown=None) as told:
        return executor(errand, cases, told.one_more)
