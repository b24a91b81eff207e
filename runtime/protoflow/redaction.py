"""Keeps the values of sensitive fields out of texts."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from typing import Any

_HIDDEN = "***"
#: Shorter values occur in any text by chance; hiding them would tell more than it hides.
_SHORTEST = 3


def scrub(text: str, message: Any, paths: Sequence[str]) -> str:
    """The text without the values that the sensitive fields of the message have.

    Args:
        text: anything that may quote the message.
        message: the decoded message; None hides nothing.
        paths: the sensitive fields, `card.number`.
    """
    if message is None or not paths:
        return text
    values = {str(value) for path in paths for value in _values(message, path.split("."))}
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, _HIDDEN)
    return text


def error_text(error: BaseException, message: Any, paths: Sequence[str]) -> str:
    """The error's own text, scrubbed."""
    return scrub(str(error), message, paths)


def traceback_text(error: BaseException, message: Any, paths: Sequence[str]) -> str:
    """The error's traceback, scrubbed."""
    return scrub("".join(traceback.format_exception(error)), message, paths)


def _values(message: Any, path: Sequence[str]) -> Iterable[Any]:
    name, *rest = path
    try:
        field = getattr(message, name)
    except AttributeError:
        return
    entries: Iterable[Any] = field if _is_repeated(field) else [field]
    for entry in entries:
        if hasattr(field, "values") and _is_repeated(field):
            entry = field[entry]
        if rest:
            yield from _values(entry, rest)
        elif isinstance(entry, bytes):
            yield entry.decode(errors="replace")
        elif entry:
            yield entry


def _is_repeated(field: Any) -> bool:
    return hasattr(field, "__iter__") and not isinstance(field, str | bytes)
