"""Writes Python code in the format of black; the filters of the templates.

Running black would take longer than everything else. This module only uses rules of black that its
yearly styles do not change: brackets with a trailing comma stay open, and other lines are split by
black's oldest rule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protoc_gen_protoflow.model import Method, Variant

WIDTH = 88


def literal(text: str) -> str:
    """Returns a string literal in the quotes that need fewer escapes, or in double quotes."""
    if '"' not in text and "\\" not in text and text.isprintable():
        return f'"{text}"'
    quote = "'" if text.count('"') > text.count("'") else '"'
    # For text with both quotes, repr escapes the single ones and keeps the double ones.
    body = repr("\"'" + text)[4:-1].replace("\\'", "'").replace(quote, f"\\{quote}")
    return quote + body + quote


def call(head: str, arguments: Sequence[str], tail: str = "", indent: int = 0) -> str:
    """Returns `head(arguments)tail` on one line, or arguments on one line, or on one each."""
    margin = " " * indent
    inside = ", ".join(arguments)
    line = f"{margin}{head}({inside}){tail}"
    if fits(line):
        return line
    body = f"{margin}    {inside}"
    if not fits(body):
        body = "\n".join(opened(f"{argument},", indent + 4) for argument in arguments)
    return f"{margin}{head}(\n{body}\n" + opened(f"){tail}", indent)


def assignment(value: str, name: str, indent: int = 0) -> str:
    """Returns `name = value`, in parentheses if the line is too long."""
    margin = " " * indent
    line = f"{margin}{name} = {value}"
    return line if fits(line) else f"{margin}{name} = (\n{margin}    {value}\n{margin})"


def sequence(head: str, items: Sequence[str], indent: int = 0, of: str = "") -> str:
    """Returns `head(items,),`: one item on one line, several items on a line each.

    With `of`, items are subscripts of that name.
    """
    margin = " " * indent
    if len(items) == 1:
        item = f"{of}[{items[0]}]" if of else items[0]
        if fits(line := f"{margin}{head}({item},),"):
            return line
    lines = [opened(f"{of}[{item}]," if of else f"{item},", indent + 4) for item in items]
    return "\n".join((f"{margin}{head}(", *lines, f"{margin}),"))


def opened(line: str, indent: int = 0) -> str:
    """Returns an indented line; if it is too long, its square brackets get lines of their own."""
    margin = " " * indent
    line = margin + line
    if fits(line) or "[" not in line:
        return line
    head, _, rest = line.partition("[")
    item, _, tail = rest.rpartition("]")
    return f"{head}[\n{margin}    {item}\n{margin}]{tail}"


def annotation(name: str, kind: str, of: str, indent: int = 0) -> str:
    """Returns `name: kind[of]`, in parentheses if only these make it fit."""
    margin = " " * indent
    value = f"{kind}[{of}]"
    roomy = fits(f"{margin}{name}: {value}") or fits(f"{margin}{name}: {kind}[")
    # Inside of parentheses, the type is on one line, or its brackets are opened.
    inside = opened(value, indent + 4)
    if not roomy and fits(f"{margin}{name}: (") and all(map(fits, inside.split("\n"))):
        return f"{margin}{name}: (\n{inside}\n{margin})"
    return opened(f"{name}: {value}", indent)


def signature(method: Method, variant: Variant, indent: int = 4) -> str:
    """Returns the `def` line of a handler method."""
    reference = method.input.reference
    message = f"messages: _pf.Batch[{reference}]" if method.batched else f"message: {reference}"
    if method.output is None:
        returns = "None"
    else:
        kind = variant.results if method.streams else "_pf.Result"
        returns = f"{kind}[{method.output.reference}]"
    # A handler with a stream of outputs is a generator, so its base has a plain `def`.
    define = "def " if method.streams else variant.define
    parameters = ["self", message, f"context: {variant.context}", "/"]
    return call(f"{define}{method.handler}", parameters, f" -> {returns}:", indent)


def import_line(package: str, module: str, alias: str) -> str:
    """Returns the import of a module under an alias."""
    if not package:
        return f"import {module} as {alias}"
    line = f"from {package} import {module} as {alias}"
    return line if fits(line) else f"from {package} import (\n    {module} as {alias},\n)"


def docstring(paragraphs: Sequence[str], indent: int = 0) -> str:
    """Returns a docstring of paragraphs; line breaks are kept."""
    margin = " " * indent
    text = "\n\n".join(paragraphs).replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    if text.startswith('"'):
        text = f"\\{text}"
    if "\n" not in text:
        # Black keeps one line as one line, however long; it puts a space after a quote at the end.
        end = " " if text.endswith('"') else ""
        return f'{margin}"""{text}{end}"""'
    first, *rest = text.split("\n")
    # Black takes the smallest indent of the later lines as the margin.
    inside = min([len(line) - len(line.lstrip()) for line in rest if line], default=0)
    lines = [f'{margin}"""{first}']
    lines += [margin + line[inside:] if line else "" for line in rest]
    return "\n".join([*lines, f'{margin}"""'])


def fits(line: str) -> bool:
    """Returns whether a line of code is short enough; characters outside of ASCII may be wide."""
    return len(line) <= WIDTH if line.isascii() else _width(line) <= WIDTH


def _width(line: str) -> int:
    from unicodedata import combining, east_asian_width

    return sum(
        0 if combining(char) else 2 if east_asian_width(char) in "FW" else 1 for char in line
    )
