"""The type stub and the native module say the same."""

from __future__ import annotations

import ast
import inspect

import llmd_sched
import llmd_sched.asgi
import llmd_sched.kv
import llmd_sched.moe
import llmd_sched.sim
import pytest
from llmd_sched import _core
from stub import Declared, declarations

DECLARED = declarations()
CALLABLE = [it for it in DECLARED if not isinstance(it.node, ast.ClassDef)]


def name_of(declared: Declared) -> str:
    return declared.qualified_name


@pytest.mark.parametrize("declared", DECLARED, ids=name_of)
def test_what_is_declared_is_there_with_its_docstring(declared: Declared) -> None:
    runtime = declared.at_runtime(_core)
    assert isinstance(runtime, type) == isinstance(declared.node, ast.ClassDef)
    if declared.docstring is not None:
        assert inspect.getdoc(runtime) == declared.docstring


@pytest.mark.parametrize("declared", CALLABLE, ids=name_of)
def test_parameters_are_the_same(declared: Declared) -> None:
    runtime = declared.at_runtime(_core)
    if declared.has_decorator("property"):
        assert inspect.isgetsetdescriptor(runtime)
        return
    if declared.name == "__new__":
        runtime = getattr(_core, declared.owner.name)
    is_bound = declared.name == "__new__" or (
        declared.owner is not None and not declared.has_decorator("staticmethod")
    )
    actual = list(inspect.signature(runtime).parameters.values())
    if is_bound and declared.name != "__new__":
        actual = actual[1:]
    expected = declared_parameters(declared.node.args, skip_first=is_bound)
    is_operator = declared.name.startswith("__") and declared.name not in ("__new__", "__exit__")
    shown = [(it.name, it.kind.name, default_of(it)) for it in actual]
    if is_operator:
        assert len(shown) == len(expected)
    else:
        assert shown == expected


def declared_parameters(
    arguments: ast.arguments, *, skip_first: bool
) -> list[tuple[str, str, object]]:
    positional = [
        *((it.arg, "POSITIONAL_ONLY") for it in arguments.posonlyargs),
        *((it.arg, "POSITIONAL_OR_KEYWORD") for it in arguments.args),
    ]
    missing = len(positional) - len(arguments.defaults)
    defaults = [inspect.Parameter.empty] * missing + [
        ast.literal_eval(default) for default in arguments.defaults
    ]
    parameters = [(*it, default) for it, default in zip(positional, defaults, strict=True)]
    parameters = parameters[1:] if skip_first else parameters
    for it, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        value = inspect.Parameter.empty if default is None else ast.literal_eval(default)
        parameters.append((it.arg, "KEYWORD_ONLY", value))
    if arguments.kwarg:
        parameters.append((arguments.kwarg.arg, "VAR_KEYWORD", inspect.Parameter.empty))
    return parameters


def default_of(parameter: inspect.Parameter) -> object:
    return parameter.default


def test_nothing_is_there_that_is_not_declared() -> None:
    declared = {it.qualified_name for it in DECLARED} | {"__version__"}
    undeclared = []
    for name, value in vars(_core).items():
        if name.startswith("__") and name != "__version__":
            continue
        if name not in declared:
            undeclared.append(name)
        if isinstance(value, type):
            undeclared += [
                f"{name}.{member}"
                for member in vars(value)
                if not member.startswith("__") and f"{name}.{member}" not in declared
            ]
    assert undeclared == []


def test_every_public_class_and_function_is_exported() -> None:
    internal = {"explain_body", "run_cli", "errand_run", "simulate", "capacity_requests_per_s"}
    internal |= {"Exchange", "Mailbox"}
    public = {it.name for it in DECLARED if it.owner is None and not it.name.startswith("_")}
    modules = (llmd_sched, llmd_sched.asgi, llmd_sched.kv, llmd_sched.moe, llmd_sched.sim)
    assert public - internal <= {name for module in modules for name in module.__all__}
    for module in modules:
        assert all(hasattr(module, name) for name in module.__all__)
