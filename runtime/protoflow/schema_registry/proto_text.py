"""Writes a .proto file from its descriptor: the text of a schema.

Messages keep their order, because frames name them by it. Services are not written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    Edition,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

from protoflow.schema_registry.proto_options import assignments, bracketed, quoted

_LARGEST_FIELD: Final = 536_870_912  # the end of a range up to `max`
_LARGEST_VALUE: Final = 2_147_483_647
_GROUP: Final = FieldDescriptorProto.TYPE_GROUP
_LABELS: Final = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
    FieldDescriptorProto.LABEL_REQUIRED: "required ",
    FieldDescriptorProto.LABEL_REPEATED: "repeated ",
}
#: The values of `DescriptorProto.visibility`, of edition 2024, and their keywords.
_VISIBILITY: Final = {1: "local ", 2: "export "}


def text_of(file: FileDescriptorProto) -> str:
    """Returns the text of a file. The same descriptor gives the same text."""
    return "\n".join(_Text(file).lines()) + "\n"


class _Text:
    """Writes one file.

    Args:
        file: the file.
    """

    def __init__(self, file: FileDescriptorProto) -> None:
        self._file = file
        self._syntax = file.syntax or "proto2"

    def lines(self) -> Iterator[str]:
        """Yields the lines."""
        file = self._file
        if self._syntax == "editions":
            yield f'edition = "{Edition.Name(file.edition).removeprefix("EDITION_")}";'
        else:
            yield f'syntax = "{self._syntax}";'
        if file.package:
            yield f"package {file.package};"
        yield from self._imports()
        yield from (f"option {one};" for one in assignments(file.options))
        yield from self._extensions(file.extension, file.message_type)
        groups = _groups(file.extension)
        for message in file.message_type:
            if message.name not in groups:
                yield from self._message(message)
        for enum in file.enum_type:
            yield from self._enum(enum)

    def _imports(self) -> Iterator[str]:
        file = self._file
        for index, name in enumerate(file.dependency):
            kind = "public " if index in file.public_dependency else ""
            kind = "weak " if index in file.weak_dependency else kind
            yield f"import {kind}{quoted(name)};"
        # of edition 2024, which older versions of protobuf do not know
        options: Iterable[str] = getattr(file, "option_dependency", ())
        yield from (f"import option {quoted(name)};" for name in options)

    def _message(self, message: DescriptorProto) -> Iterator[str]:
        yield f"{_visibility(message)}message {message.name} {{"
        yield from _indented(self._body(message))
        yield "}"

    def _body(self, message: DescriptorProto) -> Iterator[str]:
        yield from (f"option {one};" for one in assignments(message.options))
        yield from self._fields(message)
        for extensible in message.extension_range:
            options = bracketed(list(assignments(extensible.options)))
            last = extensible.end - 1
            yield f"extensions {_range(extensible.start, last, _LARGEST_FIELD - 1)}{options};"
        yield from self._reserved(
            [_range(one.start, one.end - 1, _LARGEST_FIELD - 1) for one in message.reserved_range],
            message.reserved_name,
        )
        yield from self._extensions(message.extension, message.nested_type)
        inline = _groups(message.field) | _groups(message.extension)
        for nested in message.nested_type:
            if nested.name not in inline and not nested.options.map_entry:
                yield from self._message(nested)
        for enum in message.enum_type:
            yield from self._enum(enum)

    def _fields(self, message: DescriptorProto) -> Iterator[str]:
        members: dict[int, list[FieldDescriptorProto]] = {}
        for field in message.field:
            if _in_oneof(field):
                members.setdefault(field.oneof_index, []).append(field)
        for field in message.field:
            if not _in_oneof(field):
                yield from self._field(field, message.nested_type, self._label(field))
            elif fields := members.pop(field.oneof_index, None):
                oneof = message.oneof_decl[field.oneof_index]
                yield f"oneof {oneof.name} {{"
                yield from (f"  option {one};" for one in assignments(oneof.options))
                for one in fields:
                    yield from _indented(self._field(one, message.nested_type, ""))
                yield "}"

    def _field(
        self, field: FieldDescriptorProto, siblings: Iterable[DescriptorProto], label: str
    ) -> Iterator[str]:
        """Yields a field; its group and its map entry are among its siblings."""
        nested = {one.name: one for one in siblings}
        own = nested.get(field.type_name.rpartition(".")[2])
        if own is not None and own.options.map_entry:
            key, value = own.field
            label, kind = "", f"map<{_type(key)}, {_type(value)}>"
        else:
            kind = _type(field)
        options = bracketed([*_pseudo_options(field), *assignments(field.options)])
        if field.type == _GROUP and own is not None:
            yield f"{label}group {own.name} = {field.number}{options} {{"
            yield from _indented(self._body(own))
            yield "}"
        else:
            yield f"{label}{kind} {field.name} = {field.number}{options};"

    def _label(self, field: FieldDescriptorProto) -> str:
        if self._syntax == "proto2" or field.label == FieldDescriptorProto.LABEL_REPEATED:
            return _LABELS[field.label]
        return "optional " if field.proto3_optional else ""

    def _extensions(
        self, extensions: Iterable[FieldDescriptorProto], siblings: Iterable[DescriptorProto]
    ) -> Iterator[str]:
        extended: dict[str, list[FieldDescriptorProto]] = {}
        for one in extensions:
            extended.setdefault(one.extendee, []).append(one)
        for extendee, fields in extended.items():
            yield f"extend {extendee} {{"
            for field in fields:
                yield from _indented(self._field(field, siblings, self._label(field)))
            yield "}"

    def _enum(self, enum: EnumDescriptorProto) -> Iterator[str]:
        yield f"{_visibility(enum)}enum {enum.name} {{"
        yield from (f"  option {one};" for one in assignments(enum.options))
        for value in enum.value:
            options = bracketed(list(assignments(value.options)))
            yield f"  {value.name} = {value.number}{options};"
        ranges = [_range(one.start, one.end, _LARGEST_VALUE) for one in enum.reserved_range]
        yield from _indented(self._reserved(ranges, enum.reserved_name))
        yield "}"

    def _reserved(self, ranges: list[str], names: Iterable[str]) -> Iterator[str]:
        if ranges:
            yield f"reserved {', '.join(ranges)};"
        if named := list(names if self._syntax == "editions" else map(quoted, names)):
            yield f"reserved {', '.join(named)};"


def _in_oneof(field: FieldDescriptorProto) -> bool:
    return field.HasField("oneof_index") and not field.proto3_optional


def _groups(fields: Iterable[FieldDescriptorProto]) -> set[str]:
    """Returns the names of messages that are written with their field."""
    return {field.type_name.rpartition(".")[2] for field in fields if field.type == _GROUP}


def _type(field: FieldDescriptorProto) -> str:
    # With its leading dot, a full name is never found in another scope.
    name = FieldDescriptorProto.Type.Name(field.type)
    return field.type_name or name.removeprefix("TYPE_").lower()


def _pseudo_options(field: FieldDescriptorProto) -> Iterator[str]:
    """Yields what is written like an option but is a part of the field."""
    if field.HasField("default_value"):
        value = field.default_value
        if field.type == FieldDescriptorProto.TYPE_STRING:
            value = quoted(value)
        elif field.type == FieldDescriptorProto.TYPE_BYTES:
            value = f'"{value}"'  # the descriptor contains it escaped
        yield f"default = {value}"
    if field.json_name and field.json_name != _camel(field.name) and not field.extendee:
        yield f"json_name = {quoted(field.json_name)}"


def _range(first: int, last: int, largest: int) -> str:
    if first == last:
        return str(first)
    return f"{first} to {'max' if last == largest else last}"


def _visibility(one: Any) -> str:
    # of edition 2024, which older versions of protobuf do not know
    return _VISIBILITY.get(getattr(one, "visibility", 0), "")


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _camel(name: str) -> str:
    """Returns the JSON name that protobuf derives from a field's name."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)
