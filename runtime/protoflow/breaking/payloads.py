"""Fields that the other version cannot read. `buf breaking` finds more of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

#: Types that share a wire format and can be read as each other.
_FORMS = {
    number: form
    for form, names in {
        "varint": "INT32 INT64 UINT32 UINT64 BOOL ENUM",
        "zigzag": "SINT32 SINT64",
        "fixed32": "FIXED32 SFIXED32",
        "fixed64": "FIXED64 SFIXED64",
        "bytes": "STRING BYTES",
        "float": "FLOAT",
        "double": "DOUBLE",
        "message": "MESSAGE",
        "group": "GROUP",
    }.items()
    for name in names.split()
    if (number := getattr(FieldDescriptor, f"TYPE_{name}")) is not None
}


class Difference(NamedTuple):
    """A field that differs.

    Attributes:
        message: the full name of its message.
        field: its name.
        old: the field in the old version, in words.
        new: the field in the new version, in words.
        name_only: whether only the name differs, which matters in JSON only.
    """

    message: str
    field: str
    old: str
    new: str
    name_only: bool


def differences(old: Any, new: Any) -> Iterator[Difference]:
    """Yields the differences between two messages and the messages in them; Any: descriptors."""
    seen: set[tuple[str, str]] = set()
    waiting = [(old, new)]
    while waiting:
        before, after = waiting.pop()
        if (before.full_name, after.full_name) in seen:
            continue
        seen.add((before.full_name, after.full_name))
        for field in before.fields:
            same = after.fields_by_number.get(field.number)
            if same is not None and _FORMS[field.type] == _FORMS[same.type]:
                if field.json_name != same.json_name:
                    yield _difference(after, field, same, name_only=True)
                if field.message_type is not None and same.message_type is not None:
                    waiting.append((field.message_type, same.message_type))
            else:
                other = same or after.fields_by_name.get(field.name)
                if other is not None:
                    yield _difference(after, field, other, name_only=False)


def _difference(message: Any, old: Any, new: Any, *, name_only: bool) -> Difference:
    return Difference(message.full_name, new.name, _field(old), _field(new), name_only)


def _field(field: Any) -> str:
    kind = next(
        name.removeprefix("TYPE_").lower()
        for name, number in vars(FieldDescriptor).items()
        if name.startswith("TYPE_") and number == field.type
    )
    return f"{kind} {field.name} = {field.number}"
