"""The type stub of the native module, read as the list of what must be there at run time."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import llmd_sched

STUBS = sorted((Path(llmd_sched.__file__).parent / "_core").glob("*.pyi"))

Callable = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Declared:
    """A class, function, method or property of the stub."""

    name: str
    node: ast.ClassDef | Callable
    owner: ast.ClassDef | None = None

    @property
    def qualified_name(self) -> str:
        return f"{self.owner.name}.{self.name}" if self.owner else self.name

    @property
    def docstring(self) -> str | None:
        return ast.get_docstring(self.node)

    def has_decorator(self, name: str) -> bool:
        return any(isinstance(it, ast.Name) and it.id == name for it in self.node.decorator_list)

    def at_runtime(self, module: ModuleType) -> object:
        holder = getattr(module, self.owner.name) if self.owner else module
        found = inspect.getattr_static(holder, self.name)
        return found.__func__ if isinstance(found, staticmethod) else found


def declarations() -> list[Declared]:
    """Everything that the stub's files declare."""
    return [it for stub in STUBS for it in _walk(ast.parse(stub.read_text()))]


def _walk(tree: ast.Module) -> Iterator[Declared]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            yield Declared(node.name, node)
            for member in node.body:
                if isinstance(member, Callable):
                    yield Declared(member.name, member, node)
        elif isinstance(node, Callable):
            yield Declared(node.name, node)
