"""Scalar fields: their form in JSON, their zero, and their keys in maps."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

_NAMES = {
    getattr(FieldDescriptor, f"TYPE_{name.upper()}"): name
    for name in (
        *("double", "float", "int32", "int64", "uint32", "uint64", "sint32", "sint64"),
        *("fixed32", "fixed64", "sfixed32", "sfixed64", "bool", "string", "bytes"),
    )
}
_FLOATS = ("double", "float")
SCALARS = frozenset(_NAMES.values())
NUMBERS = SCALARS - {"bool", "string", "bytes"}
_SPECIAL = ["NaN", "Infinity", "-Infinity"]


def kind(field: Any) -> str:
    """Returns the name of a scalar type, for example `int64`."""
    return _NAMES[field.type]


def is_long(name: str) -> bool:
    """Returns whether JSON writes this type as text, because its numbers are less precise."""
    return name.endswith("64")


def form(field: Any) -> Mapping[str, Any]:
    """Returns the schema of a single value of a scalar field."""
    name = kind(field)
    if name == "bool":
        return {"type": "boolean"}
    if name == "string":
        return {"type": "string"}
    if name == "bytes":
        return {"type": "string", "contentEncoding": "base64"}
    if name in _FLOATS:
        number = {"type": "number", "format": name}
        return {"anyOf": [number, {"type": "string", "enum": _SPECIAL}]}
    unsigned = name in ("uint32", "uint64", "fixed32", "fixed64")
    plain = f"{'u' if unsigned else ''}int{'64' if is_long(name) else '32'}"
    if is_long(name):
        digits = "^[0-9]+$" if unsigned else "^-?[0-9]+$"
        found: dict[str, Any] = {"type": ["string", "integer"], "format": plain, "pattern": digits}
    else:
        found = {"type": "integer", "format": plain}
    return {**found, "minimum": 0} if unsigned else found


def key_form(field: Any) -> Mapping[str, Any]:
    """Returns the schema of the keys of a map, which are always text."""
    name = kind(field)
    if name == "string":
        return {}
    if name == "bool":
        return {"enum": ["true", "false"]}
    return {"pattern": "^-?[0-9]+$"}


def written(name: str, value: Any) -> list[Any]:
    """Returns the JSON forms of a value of a scalar type, the usual one first."""
    if name == "bytes":
        return [base64.b64encode(value).decode()]
    if is_long(name):
        return [str(value), value]
    if name in _FLOATS and value != value:
        return ["NaN"]
    if name in _FLOATS and value in (float("inf"), float("-inf")):
        return ["Infinity" if value > 0 else "-Infinity"]
    if name == "float":
        # In the shortest form for 32 bits: 0.1, not 0.10000000149011612.
        return [_short(value)]
    return [value]


def _short(value: float) -> float:
    for digits in (6, 7, 8):
        text = f"{value:.{digits}g}"
        if _single(float(text)) == _single(value):
            return float(text)
    return value


def _single(value: float) -> float:
    import struct

    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


def is_required(field: Any) -> bool:
    """Returns whether the field is `required` in proto2 or in an edition."""
    if hasattr(field, "is_required"):
        return bool(field.is_required)
    return bool(field.label == 2)
