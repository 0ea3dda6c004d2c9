"""Ray Serve LLM's prefix tree over text: what its prefix-aware router asks and tells a request.

The one file is loaded from the installed package, with stand-ins for the two names that it imports:
the package itself would bring all of Ray Serve and an engine.
"""

from __future__ import annotations

import importlib.util
import sys
import time
import types
from pathlib import Path
from typing import Any

from timing import Cpu, batch

CALLS = 64
FILE = "llm/_internal/serve/request_router/prefix_aware/prefix_tree.py"


class RayRival:
    def __init__(self, texts: list[str], tenants: int) -> None:
        self._texts = texts
        self._tenants = [f"replica-{tenant}" for tenant in range(tenants)]
        self._tree = prefix_tree_class()()
        self._tree.add_tenants(self._tenants, time.time())
        for number, text in enumerate(texts):
            self._tree.insert(text, self._tenant(number), time.time())
        matched, holders = self._tree.prefix_match(texts[0], self._tenants)
        assert (matched, holders) == (texts[0], [self._tenant(0)])

    def batch(self) -> Cpu:
        return batch(CALLS, self._match_and_insert)

    def _match_and_insert(self, number: int) -> None:
        text = self._texts[number % len(self._texts)]
        _, holders = self._tree.prefix_match(text, self._tenants)
        self._tree.insert(text, holders[0], time.time())

    def _tenant(self, number: int) -> str:
        return self._tenants[4 * number % len(self._tenants)]


def prefix_tree_class() -> Any:
    package = importlib.util.find_spec("ray")
    assert package is not None
    assert package.origin is not None
    path = Path(package.origin).parent / FILE
    ray = types.ModuleType("ray")
    ray.remote = lambda actor: actor  # type: ignore[attr-defined]
    constants = types.ModuleType("ray.serve._private.constants")
    constants.SERVE_LOGGER_NAME = "ray.serve"  # type: ignore[attr-defined]
    names = {"ray": ray, "ray.serve._private.constants": constants}
    spec = importlib.util.spec_from_file_location("ray_prefix_tree_file", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = {name: sys.modules.get(name) for name in names}
    sys.modules.update(names)
    try:
        spec.loader.exec_module(module)
    finally:
        for name, was in before.items():
            if was is None:
                del sys.modules[name]
            else:
                sys.modules[name] = was
    return module.PrefixTree
