"""The values of sensitive fields, and the forms that they may have in a text.

Sensitive fields are known by message type, so a value is searched by type: nested and recursive
messages, maps and their keys, extensions, and the content of an Any.
"""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast
from urllib.parse import quote, quote_plus

from google.protobuf import descriptor_pool, message_factory, text_encoding
from google.protobuf.message import Message as ProtoMessage

#: The names of sensitive fields by the full name of the message type, as in `MessageSpec`.
Sensitive: TypeAlias = Mapping[str, Sequence[str]]

#: A text is not searched for more values than this, and they are collected in this many steps.
_MOST_VALUES = 300
_MOST_STEPS = 50_000
#: The nesting depth of messages; protobuf itself decodes 100, but an Any starts again.
DEEPEST = 100
#: Bytes of a message up to which it is searched for as a whole.
_WHOLE = 4096
_ANY = "google.protobuf.Any"
_WELL_KNOWN = "google.protobuf."
_READABLE = re.compile(rb"[\x20-\x7e]{4,}")


class TooManyError(Exception):
    """There are too many values to hide, so the text is not shown."""


def is_hidden(field: Any, sensitive: Sensitive) -> bool:  # Any: the type stubs of protobuf disagree
    """Whether a field is sensitive. Extensions are listed by their full name."""
    names = sensitive.get(field.containing_type.full_name, ())
    return (field.full_name if field.is_extension else field.name) in names


def inside(message: Any) -> ProtoMessage | None:
    """Returns the content of an Any; None if it is empty, invalid or of an unknown type."""
    name = message.type_url.rpartition("/")[2]
    for pool in (message.DESCRIPTOR.file.pool, descriptor_pool.Default()):
        try:
            found = message_factory.GetMessageClass(pool.FindMessageTypeByName(name))
            return found.FromString(message.value)
        except Exception:  # noqa: S112  any error means that the type is unknown
            continue
    return None


def is_any(message: ProtoMessage) -> bool:
    """Whether a message is a google.protobuf.Any."""
    return message.DESCRIPTOR.full_name == _ANY


def forms_of(messages: Sequence[ProtoMessage], sensitive: Sensitive) -> set[str]:
    """Returns all texts in which the sensitive values of these messages may appear.

    Raises:
        TooManyError: there are too many, so that the search would take too long.
    """
    walk = _Walk(sensitive)
    for message in messages:
        walk.message(message, False)
    return {form for value in walk.values for form in _forms(value)}


class _Walk:
    """Collects the values of sensitive fields, each once."""

    def __init__(self, sensitive: Sensitive) -> None:
        #: Keyed with their type, because 1 == 1.0 == True.
        self.values: set[str | bytes | int | float] = set()
        self._sensitive = sensitive
        self._steps = 0
        self._depth = 0

    def message(self, message: Any, hidden: bool) -> None:
        """Collects from a message; with `hidden`, the whole message is sensitive."""
        self._step()
        self._depth += 1
        if self._depth > DEEPEST:
            raise TooManyError
        self._parts(message, hidden)
        self._depth -= 1

    def _parts(self, message: Any, hidden: bool) -> None:
        if hidden and message.ByteSize() <= _WHOLE:
            self.values.add(message.SerializePartialToString())
            if (text := _json_text(message)) is not None:
                self.values.add(text)
        if is_any(message):
            self._any(message, hidden)
            return
        for field, value in message.ListFields():
            self._field(field, value, hidden or is_hidden(field, self._sensitive))

    def _any(self, message: Any, hidden: bool) -> None:
        held = inside(message)
        if held is not None:
            self.message(held, hidden)
        else:  # its content cannot be read, so it may contain anything
            self._leaf(None, message.value)

    def _field(self, field: Any, value: Any, hidden: bool) -> None:
        message_type = field.message_type
        if message_type is not None and message_type.GetOptions().map_entry:
            key_field, value_field = message_type.fields
            for key in value:
                # An entry is a message with two fields, whose names may be listed as sensitive.
                self._value(key_field, key, hidden)
                self._value(value_field, value[key], hidden)
        elif field.is_repeated:
            for item in value:
                self._value(field, item, hidden)
        else:
            self._value(field, value, hidden)

    def _value(self, field: Any, value: Any, hidden: bool) -> None:
        if field.message_type is not None:
            self.message(value, hidden)
            return
        self._step()
        if hidden and not isinstance(value, bool):
            self._leaf(field.enum_type, value)

    def _leaf(self, enum_type: Any, value: Any) -> None:
        if enum_type is not None:
            named = enum_type.values_by_number.get(value)
            self.values.add(named.name if named is not None else value)
        elif value:
            self.values.add(value)
        if len(self.values) > _MOST_VALUES:
            raise TooManyError

    def _step(self) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise TooManyError


def _json_text(message: ProtoMessage) -> str | None:
    """Returns the JSON text of a Timestamp, a Duration or a wrapper."""
    if not message.DESCRIPTOR.full_name.startswith(_WELL_KNOWN):
        return None
    from google.protobuf import json_format

    try:
        value = json_format.MessageToDict(message)
    except Exception:  # whatever the error is, the value has no JSON form
        return None
    return value if isinstance(value, str) else None


def _forms(value: str | bytes | float) -> Iterator[str]:
    if isinstance(value, str):
        yield from _text_forms(value)
    elif isinstance(value, bytes):
        yield from _byte_forms(value)
    else:
        yield from _number_forms(value)


def _text_forms(text: str) -> Iterator[str]:
    escaped = {
        text,
        repr(text)[1:-1],
        ascii(text)[1:-1],
        # the other quotes of repr, as inside a quoted text
        repr(text + "'")[1:-2],
        json.dumps(text)[1:-1],
        json.dumps(text, ensure_ascii=False)[1:-1],
        text_encoding.CEscape(cast("Any", text), as_utf8=True),  # the stub only knows bytes
        text_encoding.CEscape(text.encode("utf-8", "surrogatepass"), as_utf8=False),
        quote(text, errors="replace"),
        quote_plus(text, errors="replace"),
        html.escape(text),
        text.strip(),
    }
    for form in escaped:
        yield form
        # A form inside a form: the text of a message, shown by repr or as JSON.
        yield repr(form)[1:-1]
        yield json.dumps(form)[1:-1]
    # A traceback indents and marks the lines of a text.
    yield from (line.strip() for line in text.splitlines())
    yield from (text.upper(), text.lower(), text.title(), text.casefold(), text.swapcase())
    yield from _encoded(text.encode("utf-8", "surrogatepass"))


def _byte_forms(data: bytes) -> Iterator[str]:
    yield from _encoded(data)
    yield repr(data)[2:-1]
    yield repr(bytearray(data))[12:-2]
    yield str(list(data))[1:-1]
    yield text_encoding.CEscape(data, as_utf8=False)
    yield repr(text_encoding.CEscape(data, as_utf8=False))[1:-1]
    yield data.decode("latin-1")
    yield data.decode(errors="replace")
    yield data.decode(errors="backslashreplace")
    yield data.decode(errors="ignore")
    # Text inside bytes, as in a message of an unknown type.
    for run in _READABLE.findall(data):
        yield run.decode()


def _encoded(data: bytes) -> Iterator[str]:
    yield base64.b64encode(data).decode().rstrip("=")
    yield base64.urlsafe_b64encode(data).decode().rstrip("=")
    yield data.hex()
    yield data.hex(" ")


def _number_forms(number: float) -> Iterator[str]:
    yield str(number)
    yield f"{number:,}"
    if isinstance(number, float):
        # The text format also shows the shortest text of a 32-bit number.
        for precision in ("g", ".7g", ".8g", ".9g", ".17g", ".2f", ",.2f"):
            yield format(number, precision)
        if number.is_integer():
            yield f"{number:.0f}"
            yield f"{number:,.0f}"
    else:
        yield hex(number)
