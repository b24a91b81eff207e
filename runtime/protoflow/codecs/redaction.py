"""Keeps the values of sensitive fields out of texts."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from google.protobuf.message import Message as ProtoMessage

#: The names of sensitive fields by the full name of the message type, as in `MessageSpec`.
Sensitive: TypeAlias = Mapping[str, Sequence[str]]

_HIDDEN = "***"
#: Shorter values occur in any text by chance; hiding them would tell more than it hides.
_SHORTEST = 3
_LONGEST = 1024


def scrub(text: str, message: Any, sensitive: Sensitive) -> str:
    """The text without the values that the sensitive fields of the message have.

    Args:
        text: anything that may quote the message.
        message: the decoded message; None hides nothing.
        sensitive: the sensitive fields by type.
    """
    if not sensitive or not isinstance(message, ProtoMessage):
        return text
    for value in sorted(set(_texts(message, sensitive, False)), key=len, reverse=True):
        if len(value) >= _SHORTEST:
            text = text.replace(value, _HIDDEN)
    return text


def error_text(error: BaseException, message: Any, sensitive: Sensitive) -> str:
    """The error's own text, scrubbed."""
    return scrub(str(error), message, sensitive)


def traceback_text(error: BaseException, message: Any, sensitive: Sensitive) -> str:
    """The error's traceback, scrubbed."""
    return scrub("".join(traceback.format_exception(error)), message, sensitive)


def shown(value: Any, sensitive: Sensitive) -> Any:
    """A decoded message for people to see: as plain data, sensitive fields hidden.

    Args:
        value: a protobuf message, or data of any other kind, which has no known types.
        sensitive: the sensitive fields by type.
    """
    if not isinstance(value, ProtoMessage):
        return repr(value)[:_LONGEST]
    from google.protobuf import json_format

    tree = json_format.MessageToDict(value, preserving_proto_field_name=True)
    if not isinstance(tree, dict):  # wrappers and the like are a bare value in JSON
        return _HIDDEN if sensitive else tree
    _hide(tree, value, sensitive)
    return tree


def _hide(tree: Any, message: ProtoMessage, sensitive: Sensitive) -> None:
    """Hides in a tree what the message that it was made of has in sensitive fields."""
    names = sensitive.get(message.DESCRIPTOR.full_name, ())
    for field, value in message.ListFields():
        if not isinstance(tree, dict) or field.name not in tree:
            continue
        if field.name in names:
            tree[field.name] = _HIDDEN
        elif field.message_type is not None:
            for inner, part in _pairs(tree[field.name], value):
                if isinstance(part, ProtoMessage):
                    _hide(inner, part, sensitive)


def _pairs(tree: Any, value: Any) -> Iterable[tuple[Any, Any]]:
    """The messages in the value of a field, each with its part of the tree."""
    if isinstance(value, ProtoMessage):
        return [(tree, value)]
    if isinstance(tree, dict):
        return [(tree.get(_key(key)), value[key]) for key in value]
    return zip(tree, value, strict=True)


def _key(key: Any) -> str:
    return str(key).lower() if isinstance(key, bool) else str(key)


def _texts(value: Any, sensitive: Sensitive, hidden: bool) -> Iterable[str]:
    """The texts of what a value has in sensitive fields, or of all of it."""
    if isinstance(value, ProtoMessage):
        names = sensitive.get(value.DESCRIPTOR.full_name, ())
        for field, inner in value.ListFields():
            yield from _texts(inner, sensitive, hidden or field.name in names)
    elif isinstance(value, bytes | str | int | float):
        if hidden and value:
            yield value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    elif hasattr(value, "items"):
        for key, inner in value.items():
            yield from _texts(key, sensitive, hidden)
            yield from _texts(inner, sensitive, hidden)
    else:
        for inner in value:
            yield from _texts(inner, sensitive, hidden)
