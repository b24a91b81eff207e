"""The output of commands: tables for people, JSON for programs. Data goes to stdout."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from protoflow.codecs.printable import printable

_LONGEST = 500


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str) -> None:
    """Prints rows beneath their headings; the text `empty` on stderr if there are none.

    Args:
        rows: the values by column.
        columns: the headings, in order.
        empty: the text for an empty table.
    """
    if not rows:
        click.echo(empty, err=True)
        return
    cells = [list(columns), *([_text(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    for line in cells:
        padded = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(padded).rstrip())


def as_json(value: Any) -> None:
    """Prints one JSON object or array on one line."""
    click.echo(json.dumps(value, ensure_ascii=False, default=str))


def _text(value: Any) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else printable(str(value), _LONGEST)
