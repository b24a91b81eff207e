"""Decoded messages as plain data for people, with sensitive fields hidden."""

from __future__ import annotations

import base64
import math
from typing import Any

from google.protobuf.message import Message as ProtoMessage

from protoflow.codecs.printable import printable
from protoflow.codecs.sensitive import DEEPEST, Sensitive, inside, is_any, is_hidden
from protoflow.counted import counted

_HIDDEN = "***"
_CUT = "..."
_LONGEST = 1024
_MOST_VALUES = 1000


def shown(value: Any, sensitive: Sensitive) -> Any:
    """Returns a decoded message as plain data that JSON can represent.

    Args:
        value: a protobuf message, or other data of unknown types.
        sensitive: the sensitive fields by type.
    """
    if not isinstance(value, ProtoMessage):
        return printable(repr(value)[: _LONGEST + 1], _LONGEST)
    return _Shown(sensitive).message(value)


class _Shown:
    def __init__(self, sensitive: Sensitive) -> None:
        self._sensitive = sensitive
        self._left = _MOST_VALUES
        self._depth = 0

    def message(self, message: Any) -> Any:
        if self._depth >= DEEPEST:
            return _CUT
        self._depth += 1
        try:
            return self._parts(message)
        finally:
            self._depth -= 1

    def _parts(self, message: Any) -> Any:
        kind = message.DESCRIPTOR.full_name
        if kind in _AS_JSON:
            if kind in self._sensitive:
                return _HIDDEN
            if (known := _by_json(message)) is not None:
                return known
        if is_any(message):
            return self._any(message)
        tree: dict[str, Any] = {}
        for field, value in message.ListFields():
            if self._left <= 0:
                tree[_CUT] = _CUT
                break
            name = f"[{field.full_name}]" if field.is_extension else field.name
            hidden = is_hidden(field, self._sensitive)
            tree[name] = _HIDDEN if hidden else self._field(field, value)
        return tree

    def _any(self, message: Any) -> dict[str, Any]:
        held = inside(message)
        kind = printable(message.type_url)
        if held is None:  # its content is unknown
            return {"@type": kind, "value": counted(len(message.value), "byte")}
        content = self.message(held)
        return {"@type": kind, **(content if isinstance(content, dict) else {"value": content})}

    def _field(self, field: Any, value: Any) -> Any:
        kind = field.message_type
        if kind is not None and kind.GetOptions().map_entry:
            return self._map(kind, value)
        if not field.is_repeated:
            return self._value(field, value)
        items = [self._value(field, item) for item in value[: max(0, self._left)]]
        return items if len(items) == len(value) else [*items, _CUT]

    def _map(self, kind: Any, value: Any) -> dict[str, Any]:
        key_field, value_field = kind.fields
        tree: dict[str, Any] = {}
        for key in value:
            if self._left <= 0:
                tree[_CUT] = _CUT
                break
            # An entry is a message with two fields, whose names may be listed as sensitive.
            name = _HIDDEN if is_hidden(key_field, self._sensitive) else str(key)
            hidden = is_hidden(value_field, self._sensitive)
            tree[name] = _HIDDEN if hidden else self._value(value_field, value[key])
        return tree

    def _value(self, field: Any, value: Any) -> Any:
        self._left -= 1
        if field.message_type is not None:
            return self.message(value)
        if field.enum_type is not None:
            named = field.enum_type.values_by_number.get(value)
            return named.name if named is not None else value
        if isinstance(value, bytes):
            return _cut(base64.b64encode(value[:_LONGEST]).decode(), len(value) > _LONGEST)
        if isinstance(value, str):
            return _cut(value[:_LONGEST], len(value) > _LONGEST)
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        return value


def _cut(text: str, cut: bool) -> str:
    return text + _CUT if cut else text


#: These types are more readable in JSON form: a time, a duration, a list of paths.
_AS_JSON = frozenset(
    f"google.protobuf.{name}"
    for name in (
        "Timestamp", "Duration", "FieldMask", "BoolValue", "BytesValue", "DoubleValue",
        "FloatValue", "Int32Value", "Int64Value", "StringValue", "UInt32Value", "UInt64Value",
    )
)  # fmt: skip


def _by_json(message: Any) -> Any:
    from google.protobuf import json_format

    try:
        value: Any = json_format.MessageToDict(message)
    except Exception:  # the value is out of range, as in some Timestamps: its fields are shown
        return None
    return _cut(value[:_LONGEST], len(value) > _LONGEST) if isinstance(value, str) else value
