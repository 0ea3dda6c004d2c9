"""The brains of this process, one for each deployment that it routes to.

Apart from the router class: Ray pickles that by value where it is given as an object, and what is
here must be one for the process, not one for each copy.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

from llmd_sched.ray._brain import DeploymentBrain
from llmd_sched.ray._settings import Settings

_lock = threading.Lock()
_brains: dict[str, DeploymentBrain] = {}


def deployment_brain(name: str, kwargs: Mapping[str, Any]) -> DeploymentBrain:
    """The brain of a deployment; a new one where it had none or had other settings."""
    settings = Settings.of(kwargs)
    with _lock:
        brain = _brains.get(name)
        if brain is None or brain.settings != settings:
            if brain is not None:
                brain.close()
            brain = _brains[name] = DeploymentBrain(name, settings)
        return brain


def find_brain(name: str) -> DeploymentBrain | None:
    """The brain of a deployment, if this process routes to it."""
    return _brains.get(name)


def all_deployments() -> dict[str, DeploymentBrain]:
    """Every deployment's brain, by name."""
    with _lock:
        return dict(_brains)
