"""Types of google.protobuf with a JSON form of their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_FORMS: Mapping[str, Mapping[str, Any]] = {
    "Any": {"type": "object", "properties": {"@type": {"type": "string"}}},
    "Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$"},
    "Empty": {"type": "object"},
    "FieldMask": {"type": "string"},
    "ListValue": {"type": "array"},
    "Struct": {"type": "object"},
    "Timestamp": {"type": "string", "format": "date-time"},
    "Value": {},
}
WELL_KNOWN: Final = {f"google.protobuf.{name}": form for name, form in _FORMS.items()}
#: Messages whose JSON form is that of the value in them, or null.
WRAPPED: Final = frozenset(
    f"google.protobuf.{name}Value"
    for name in ("Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64")
)
