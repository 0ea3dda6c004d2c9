"""The brains of deployments in this process, and how to wait for what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def brain_of(name: str) -> Any:
    """That of the deployment with this name in it."""
    from llmd_sched.ray._deployments import all_deployments

    # The handle's own thread makes it at the first request.
    until(lambda: any(name in key for key in all_deployments()))
    (found,) = [it for key, it in all_deployments().items() if name in key]
    return found


def until(holds: Callable[[], bool]) -> None:
    """Waits for what happens in its own time; the test's time limit bounds it."""
    while not holds():
        time.sleep(0.01)
