"""The schema of a message: its .proto file, without what readers of payloads do not need.

Services and the annotations of Protoflow are left out, and so are imports that only they use. So
a changed policy is no new version of a schema.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from protoflow.schema_registry.options import SchemaFormat
from protoflow.schema_registry.proto_text import text_of

_ANNOTATIONS: Final = "protoflow/v1/options.proto"
#: The folders of files that every registry and client has, so that nobody registers them.
_KNOWN: Final = ("google/protobuf/", "google/type/", "confluent/")


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema to register.

    Attributes:
        text: the schema, as the registry gets it.
        imports: the descriptors of the files that are registered as references.
    """

    text: str
    imports: tuple[Any, ...]


def schema_of(file: Any, format: SchemaFormat) -> Schema:
    """Returns the schema of a file, given by its descriptor."""
    proto = FileDescriptorProto.FromString(file.serialized_pb)
    proto.ClearField("service")
    used = set(_files_of_types(proto, file.pool))
    for parent, options in list(_options(proto)):
        for field, _value in options.ListFields():
            if not field.is_extension:
                continue
            if field.file.name == _ANNOTATIONS:
                options.ClearExtension(field)
            else:
                used.add(field.file.name)
        if not options.ListFields():
            parent.ClearField("options")
    kept = _keep_imports(proto, file, used)
    if format is SchemaFormat.TEXT:
        text = text_of(proto)
    else:
        text = base64.b64encode(proto.SerializeToString(deterministic=True)).decode()
    imports = tuple(one for one in kept if not one.name.startswith(_KNOWN))
    return Schema(text, imports)


def path_of(message: Any, format: SchemaFormat) -> tuple[int, ...]:
    """Returns the place of a message in its file, given by its descriptor.

    A text has no messages for the entries of maps, a serialized descriptor has.
    """
    path: list[int] = []
    while (parent := message.containing_type) is not None:
        siblings = [
            one
            for one in parent.nested_types
            if format is SchemaFormat.SERIALIZED or not one.GetOptions().map_entry
        ]
        path.append(siblings.index(message))
        message = parent
    top = FileDescriptorProto.FromString(message.file.serialized_pb).message_type
    path.append([one.name for one in top].index(message.name))
    return tuple(reversed(path))


def _options(one: Any) -> Iterator[tuple[Any, Any]]:
    """Yields all options of a descriptor and of what it contains, with their owners."""
    if one.HasField("options"):
        yield one, one.options
    for field, value in one.ListFields():
        if field.message_type is not None and field.is_repeated:
            for part in value:
                if "options" in part.DESCRIPTOR.fields_by_name:
                    yield from _options(part)


def _files_of_types(proto: FileDescriptorProto, pool: Any) -> Iterator[str]:
    """Yields the files of the types of all fields, and of the messages that are extended."""
    waiting: list[FileDescriptorProto | DescriptorProto] = [proto]
    while waiting:
        one = waiting.pop()
        fields = list(one.extension)
        if isinstance(one, FileDescriptorProto):
            waiting += one.message_type
        else:
            fields += one.field
            waiting += one.nested_type
        for name in {name for field in fields for name in (field.type_name, field.extendee)}:
            if name:
                yield pool.FindFileContainingSymbol(name.removeprefix(".")).name


def _keep_imports(proto: FileDescriptorProto, file: Any, used: set[str]) -> list[Any]:
    """Removes imports that are not used; returns the descriptors of the others."""
    public = {proto.dependency[index] for index in proto.public_dependency}
    weak = {proto.dependency[index] for index in proto.weak_dependency}
    kept = [
        one
        for one in file.dependencies
        if one.name in public or not used.isdisjoint(_visible_through(one))
    ]
    names = [one.name for one in kept]
    for field in ("dependency", "public_dependency", "weak_dependency"):
        proto.ClearField(field)
    proto.dependency.extend(names)
    proto.public_dependency.extend(names.index(name) for name in names if name in public)
    proto.weak_dependency.extend(names.index(name) for name in names if name in weak)
    return kept


def _visible_through(file: Any) -> Iterator[str]:
    """Yields a file, and the files that it imports publicly."""
    yield file.name
    for one in file.public_dependencies:
        yield from _visible_through(one)
