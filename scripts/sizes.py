"""Checks sizes: product modules have at most 300 lines, functions 40 without their docstring.

Run by `make lint`. `EXCEPTIONS` names what may be longer, up to which length, and why. Generated
modules are not checked.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("runtime/protoflow", "protoc_gen_protoflow")
GENERATED = {"protoc_gen_protoflow/compiled.py", "runtime/protoflow/v1/options_pb2.py"}
MODULE, FUNCTION = 300, 40

#: Path, or path::function -> the length that is allowed, and the reason.
EXCEPTIONS: dict[str, tuple[int, str]] = {
    "runtime/protoflow/publishing/encoder.py::Encoder.__call__": (57, "hot path: no calls"),
    "runtime/protoflow/service/service.py": (435, "the documented methods, each a thin delegate"),
    "runtime/protoflow/transports/kafka/records.py::deliveries": (43, "hot path: no calls"),
    "runtime/protoflow/transports/memory/broker.py::Broker.admit": (41, "one transaction"),
}


def lengths(path: Path) -> Iterator[tuple[str, int, int]]:
    """Yields the name, length and limit of a module and of each of its functions."""
    text = path.read_text(encoding="utf-8")
    name = str(path.relative_to(ROOT))
    yield name, text.count("\n"), MODULE
    yield from _functions(ast.parse(text), f"{name}::")


def _functions(node: ast.AST, prefix: str) -> Iterator[tuple[str, int, int]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{child.name}", _length(child), FUNCTION
            yield from _functions(child, f"{prefix}{child.name}.")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(child, f"{prefix}{child.name}.")
        else:
            yield from _functions(child, prefix)


def _length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    end = function.end_lineno or function.lineno
    lines = end - function.lineno + 1
    if ast.get_docstring(function, clean=False) is not None:
        first = function.body[0]
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def problems() -> Iterator[str]:
    """Yields a line for each length over its limit, and for each exception without need."""
    unneeded = set(EXCEPTIONS)
    for package in PRODUCT:
        for path in sorted((ROOT / package).rglob("*.py")):
            if str(path.relative_to(ROOT)) in GENERATED:
                continue
            for name, length, limit in lengths(path):
                allowed = EXCEPTIONS[name][0] if name in EXCEPTIONS else limit
                if length > allowed:
                    yield f"{name}: {length} lines, at most {allowed}; split it"
                if length > limit:
                    unneeded.discard(name)
    yield from (f"{name}: needs no exception; remove it" for name in sorted(unneeded))


if __name__ == "__main__":
    found = list(problems())
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))
