"""Reads the comments of the .proto from the docstrings of the generated modules."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from protoflow.contract.catalog import Catalog
from protoflow.contract.spec import FileSpec, ProducerSpec, ServiceSpec


def comments_of(catalog: Catalog) -> dict[str, str]:
    """Returns the comments on services, methods and messages with topics, by full name."""
    sources = {file.source for file in catalog.files}
    modules = [
        module
        for module in [*sys.modules.values()]
        if isinstance(file := getattr(module, "__dict__", {}).get("__protoflow_spec__"), FileSpec)
        and file.source in sources
    ]
    return {name: comment for module in modules for name, comment in _of_module(module) if comment}


def _of_module(module: ModuleType) -> Iterator[tuple[str, str]]:
    try:
        tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, UnicodeDecodeError):
        return  # modules in archives, or without their source, have no readable comments
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            spec = getattr(getattr(module, node.name, None), "__protoflow_spec__", None)
            if isinstance(spec, ServiceSpec):
                yield from _of_handler(node, spec)
            elif isinstance(spec, ProducerSpec):
                yield from _of_producer(node, spec)


def _of_handler(node: ast.ClassDef, spec: ServiceSpec) -> Iterator[tuple[str, str]]:
    text = ast.get_docstring(node) or ""
    if text != f"Handles {spec.name}.":
        yield spec.name, text
    names = {method.handler: method.name for method in spec.methods}
    for item in node.body:
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and item.name in names:
            yield names[item.name], _without_facts(ast.get_docstring(item) or "")


def _of_producer(node: ast.ClassDef, spec: ProducerSpec) -> Iterator[tuple[str, str]]:
    """Yields the comment of the message below each declaration."""
    for declared, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(declared, ast.AnnAssign)
            and isinstance(declared.target, ast.Name)
            and (publication := spec.publications.get(declared.target.id)) is not None
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            name = publication.message.message_class.DESCRIPTOR.full_name
            yield name, _without_facts(inspect.cleandoc(str(below.value.value)))


def _without_facts(text: str) -> str:
    """Removes the last paragraph of a method's docstring, which describes topics."""
    return text.rpartition("\n\n")[0]
