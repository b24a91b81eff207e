"""Keeps the values of sensitive fields out of texts."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import Message as ProtoMessage

_HIDDEN = "***"
#: Shorter values occur in any text by chance; hiding them would tell more than it hides.
_SHORTEST = 3
_LONGEST = 1024


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


def shown(value: Any, paths: Sequence[str]) -> Any:
    """A decoded message for people to see: as plain data, sensitive fields hidden.

    Args:
        value: a protobuf message, or data of any other kind, which has no known paths.
        paths: the sensitive fields, `card.number`.
    """
    if not isinstance(value, ProtoMessage):
        return repr(value)[:_LONGEST]
    from google.protobuf import json_format

    tree = json_format.MessageToDict(value, preserving_proto_field_name=True)
    if not isinstance(tree, dict):  # wrappers and the like are a bare value in JSON
        return _HIDDEN if paths else tree
    for path in paths:
        _hide(tree, path.split("."))
    return tree


def _hide(tree: Any, path: Sequence[str]) -> None:
    name, *rest = path
    if not isinstance(tree, dict) or name not in tree:
        return
    if not rest:
        tree[name] = _HIDDEN
        return
    field = tree[name]
    inner: Iterable[Any] = field if isinstance(field, list) else [field]
    for item in inner:
        _hide(item, rest)
        # A map of messages: the path names what lies in its values.
        for value in item.values() if isinstance(item, dict) else ():
            _hide(value, rest)


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
    # By length: repeated fields of messages have no __iter__, messages have no length.
    return hasattr(field, "__len__") and not isinstance(field, str | bytes)
