"""A Ray cluster that can lose what there is to lose, clients, and what must hold afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

OBJECT_STORE_BYTES = 100 << 20
# Nothing is booked any more so long after the last request had its answer.
SETTLED_S = 5.0
# Longer than any answer takes: a request that has none by then hangs.
HANGS_S = 90.0
CALLERS = 6


class LoadedCluster:
    """A head and two workers, on which replicas run."""

    def __init__(self, cluster: Any, serve: Any) -> None:
        self.cluster = cluster
        self.serve = serve
        self.workers: list[Any] = []

    def add_worker(self) -> None:
        """A node for replicas."""
        self.workers.append(
            self.cluster.add_node(
                num_cpus=1, resources={"engines": 100}, object_store_memory=OBJECT_STORE_BYTES
            )
        )


class Load:
    """Clients that send one request after the other, each its own conversation."""

    def __init__(
        self, handle: Any, prompt_of: Callable[[int, int], dict[str, Any]] | None = None
    ) -> None:
        self._handle = handle
        self._prompt_of = prompt_of or text_prompt_of
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(at,)) for at in range(CALLERS)]
        self.answered = 0
        self.failed: list[Exception] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _send(self, caller: int) -> None:
        turn = 0
        while not self._ends.is_set():
            turn += 1
            try:
                request = {**self._prompt_of(caller, turn), "takes_s": 0.02}
                self._handle.remote(request).result(timeout_s=HANGS_S)
            except Exception as failed:
                with self._lock:
                    self.failed.append(failed)
            else:
                with self._lock:
                    self.answered += 1

    def goes_on(self, requests: int = 60) -> None:
        """Waits until so many more were answered."""
        goal = self.answered + requests
        until(lambda: self.answered >= goal)


def text_prompt_of(caller: int, turn: int, **options: Any) -> dict[str, Any]:
    return {"prompt": f"caller {caller} " + "x" * 4_000 + f" turn {turn}", **options}


def until(holds: Callable[[], bool]) -> None:
    """Waits for what happens in its own time; the test's time limit bounds it."""
    while not holds():
        time.sleep(0.01)


def brain_of(app: str) -> Any:
    """The brain of an application's only routed deployment, in this process."""
    from llmd_sched.ray._deployments import all_deployments

    until(lambda: any(app in key for key in all_deployments()))
    (found,) = [it for key, it in all_deployments().items() if app in key]
    return found


def addresses(app: str) -> set[str]:
    return {it.address for it in brain_of(app).router.endpoints()}


def inflight(app: str) -> int:
    """Requests that this router and those that it hears have in flight."""
    found: int = sum(it.inflight_requests for it in brain_of(app).router.endpoints())
    return found


def assert_settles(app: str) -> None:
    """Nothing is booked, here or in the ledger, soon after the last answer."""

    def is_settled() -> bool:
        return brain_of(app).counters()["booked"] == 0 and inflight(app) == 0

    until_s = time.monotonic() + SETTLED_S
    while not is_settled() and time.monotonic() < until_s:
        time.sleep(0.01)
    seen = brain_of(app).counters()
    assert is_settled(), (seen, brain_of(app).router.endpoints())
    assert (seen["fallbacks"], seen["last_error"]) == (0, None)


def assert_only_accepted_ones_failed(load: Load) -> None:
    from ray.exceptions import RayError

    assert all(isinstance(failed, RayError) for failed in load.failed), load.failed
    # A caller has one at a time; each loses at most the one that it had at the dead.
    assert len(load.failed) <= CALLERS, load.failed
