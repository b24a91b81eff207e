"""Reads annotations under their number, and under the provisional number that they had before.

Committed `_pb2` modules keep the numbers of the options.proto that they were generated with.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf import message_factory
from google.protobuf.unknown_fields import UnknownFieldSet

#: The numbers until registered ones were assigned, by the names of the extensions.
PROVISIONAL = {
    "file": 50771,
    "message": 50771,
    "field": 50771,
    "service": 50771,
    "consume": 50771,
    "publish": 50772,
}


def annotation(options: Any, extension: Any) -> Any:
    """Returns the value of an annotation in the options of a descriptor, empty if it is not set."""
    provisional = PROVISIONAL[extension.name]
    if extension.number == provisional or options.HasExtension(extension):
        return options.Extensions[extension]
    value = message_factory.GetMessageClass(extension.message_type)()
    for data in unknown(options, provisional):
        value.MergeFromString(data)
    return value


def unknown(options: Any, number: int) -> Iterator[bytes]:
    """Yields the serialized messages under a number that protobuf has no extension for."""
    fields = UnknownFieldSet(options)
    for index in range(len(fields)):
        field = fields[index]
        if field.field_number == number and isinstance(field.data, bytes):
            yield field.data
