"""Reads annotations under their number, and under the provisional number that they had before.

Committed `_pb2` modules keep the numbers of the options.proto that they were generated with.
"""

from __future__ import annotations

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
    for field in UnknownFieldSet(options):
        if field.field_number == provisional and isinstance(field.data, bytes):
            value.MergeFromString(field.data)
    return value
