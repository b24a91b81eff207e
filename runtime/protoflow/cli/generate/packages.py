"""Moves generated modules below a package, and rewrites their imports of each other.

protoc writes absolute imports that begin at the root of the .proto files. Only imports of modules
that this run generated are changed, so no other import is affected.
"""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

#: protoc writes this for a folder with the name of a keyword, which Python cannot parse.
_FROM = re.compile(r"^from ([\w.]+) import (\w+) as (\w+)$", re.MULTILINE)
#: The function of protobuf's builder; one argument is the name of the module.
_BUILD = "BuildTopDescriptorsAndMessages"


class _Edit(NamedTuple):
    line: int
    start: int
    end: int
    text: str


def rewrite(source: str, package: str, modules: Collection[str]) -> str:
    """Returns the source with imports of these modules below a package.

    If the package is "", only imports from folders with the name of a keyword are repaired.
    """
    source = _without_keywords(source)
    if not package:
        return source
    lines = source.split("\n")
    edits = sorted(_edits(ast.parse(source), package, modules), reverse=True)
    for edit in edits:
        # ast counts columns in bytes of UTF-8.
        line = lines[edit.line].encode()
        lines[edit.line] = (line[: edit.start] + edit.text.encode() + line[edit.end :]).decode()
    return "\n".join(lines)


def _without_keywords(source: str) -> str:
    def imported(match: re.Match[str]) -> str:
        module, name, alias = match.groups()
        if not any(keyword.iskeyword(part) for part in module.split(".")):
            return match[0]
        return f"{alias} = importlib.import_module('{module}.{name}')"

    changed = _FROM.sub(imported, source)
    if changed == source or re.search(r"^import importlib$", source, re.MULTILINE):
        return changed
    # The import of importlib goes before the first replaced import.
    at = re.search(r"^(?:import|from|\w+ = importlib)\b", changed, re.MULTILINE)
    place = at.start() if at else 0
    return f"{changed[:place]}import importlib\n{changed[place:]}"


def _edits(tree: ast.Module, package: str, modules: Collection[str]) -> Iterator[_Edit]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from _from(node, package, modules)
        elif isinstance(node, ast.Import):
            yield from _import(node, package, modules)
        elif isinstance(node, ast.Call):
            yield from _call(node, package, modules)


def _from(node: ast.ImportFrom, package: str, modules: Collection[str]) -> Iterator[_Edit]:
    module = node.module or ""
    if module in modules or all(f"{module}.{name.name}" in modules for name in node.names):
        start = node.col_offset + len("from ")
        yield _Edit(node.lineno - 1, start, start + len(module.encode()), f"{package}.{module}")


def _import(node: ast.Import, package: str, modules: Collection[str]) -> Iterator[_Edit]:
    if len(node.names) != 1 or node.names[0].name not in modules:
        return
    name = node.names[0]
    parent, _, last = f"{package}.{name.name}".rpartition(".")
    alias = f" as {name.asname}" if name.asname and name.asname != last else ""
    text = f"from {parent} import {last}{alias or ' as ' + last}"
    yield _Edit(node.lineno - 1, node.col_offset, node.end_col_offset or 0, text)


def _call(node: ast.Call, package: str, modules: Collection[str]) -> Iterator[_Edit]:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else None
    place = {"import_module": 0, _BUILD: 1}.get(called or "")
    if place is None or len(node.args) <= place:
        return
    argument = node.args[place]
    value = argument.value if isinstance(argument, ast.Constant) else None
    if isinstance(value, str) and value in modules:
        text = f"'{package}.{value}'"
        yield _Edit(argument.lineno - 1, argument.col_offset, argument.end_col_offset or 0, text)
