"""Converts parameters for each driver; statements of the runtime use `$1`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_PARAMETER: Final = re.compile(r"\$(\d+)")
#: Cached translations; the runtime has a few dozen statements.
_KEPT: Final = 256


@lru_cache(_KEPT)
def numbered(statement: str) -> str:
    """Returns the statement for SQLite, with `?1`."""
    return _PARAMETER.sub(r"?\1", statement)


@lru_cache(_KEPT)
def _positional(statement: str) -> tuple[str, tuple[int, ...]]:
    order = tuple(int(number) - 1 for number in _PARAMETER.findall(statement))
    return _PARAMETER.sub("%s", statement.replace("%", "%%")), order


def positional(statement: str, values: Sequence[object]) -> tuple[str, tuple[object, ...] | None]:
    """Returns statement and values for psycopg, with `%s`: a value that is used twice is passed
    twice. Without values it returns None for them, so that `%` needs no escape."""
    if not values:
        return statement, None
    translated, order = _positional(statement)
    return translated, tuple(values[index] for index in order)
