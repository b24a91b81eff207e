"""Writes options in protobuf's language."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import text_encoding, text_format
from google.protobuf.descriptor import FieldDescriptor

_FLOATS = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)


def assignments(options: Any) -> Iterator[str]:
    """Yields `name = value` for each option that is set, in the order of their numbers.

    Options of extensions that are not loaded are left out, because their names are not known.
    """
    for field, value in options.ListFields():
        name = f"({field.full_name})" if field.is_extension else field.name
        for one in value if field.is_repeated else (value,):
            yield f"{name} = {_value(field, one)}"


def bracketed(parts: list[str]) -> str:
    """Returns the options of a field or a value, with a leading blank; empty without options."""
    return f" [{', '.join(parts)}]" if parts else ""


def quoted(text: str | bytes) -> str:
    """Returns a string literal."""
    data = text.encode() if isinstance(text, str) else text
    return f'"{text_encoding.CEscape(data, as_utf8=False)}"'


def number(value: float) -> str:
    """Returns a literal of a floating-point number."""
    return repr(value).removesuffix(".0") if value == value else "nan"


def _value(field: Any, value: Any) -> str:
    if field.message_type is not None:
        return f"{{ {text_format.MessageToString(value, as_one_line=True)} }}"
    if field.enum_type is not None:
        return str(field.enum_type.values_by_number[value].name)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | bytes):
        return quoted(value)
    return number(value) if field.cpp_type in _FLOATS else str(value)
