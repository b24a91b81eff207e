"""Parameters as each driver writes them: statements of the runtime say `$1`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_PARAMETER: Final = re.compile(r"\$(\d+)")
#: Kept translations; the runtime has a few dozen statements.
_KEPT: Final = 256


@lru_cache(_KEPT)
def numbered(statement: str) -> str:
    """Returns the statement as SQLite wants it, with `?1`."""
    return _PARAMETER.sub(r"?\1", statement)


@lru_cache(_KEPT)
def _positional(statement: str) -> tuple[str, tuple[int, ...]]:
    order = tuple(int(number) - 1 for number in _PARAMETER.findall(statement))
    return _PARAMETER.sub("%s", statement.replace("%", "%%")), order


def positional(statement: str, values: Sequence[object]) -> tuple[str, tuple[object, ...] | None]:
    """Returns statement and values as psycopg wants them, with `%s`: a value that is used twice
    is given twice. Without values, None: then `%` stands for itself."""
    if not values:
        return statement, None
    translated, order = _positional(statement)
    return translated, tuple(values[index] for index in order)
