"""The page of the Python API: every public name, for Sphinx to describe from its docstring."""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

#: The public modules; a name is described in the first that has it.
MODULES = (
    "protoflow",
    "protoflow.errors",
    "protoflow.message",
    "protoflow.outcomes",
    "protoflow.pipeline",
    "protoflow.middleware",
    "protoflow.observability.logs",
    "protoflow.outbox",
    "protoflow.inbox",
    "protoflow.database",
    "protoflow.testing",
    "protoflow.transport",
    "protoflow.transport.kit",
)


def public_names(module: ModuleType) -> Iterator[str]:
    """The names that a module defines or exports (`from x import name as name`)."""
    tree = ast.parse(Path(inspect.getfile(module)).read_text())
    found: set[str] = {*getattr(module, "__all__", ())}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            found.update(each.name for each in node.names if each.name == each.asname)
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
    yield from sorted(name for name in found if not name.startswith("_"))


def directive(described: object) -> str:
    """What describes an object."""
    if not inspect.isclass(described):
        return "autofunction" if inspect.isfunction(described) else "autodata"
    return "autoexception" if issubclass(described, BaseException) else "autoclass"


def api_reference() -> str:
    """A section for each module."""
    described: set[int] = set()
    lines: list[str] = []
    for path in MODULES:
        module = importlib.import_module(path)
        lines += [f"## {path}", "", (module.__doc__ or "").partition("\n")[0], ""]
        lines += ["```{eval-rst}", f".. currentmodule:: {path}"]
        for name in public_names(module):
            item = getattr(module, name)
            if id(item) in described:
                continue
            described.add(id(item))
            kind = directive(item)
            lines += ["", f".. {kind}:: {name}"]
            lines += ["   :members:"] * (kind in ("autoclass", "autoexception"))
        lines += ["```", ""]
    return "\n".join(lines)
