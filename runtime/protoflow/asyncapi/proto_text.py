"""Writes messages in protobuf's language, with all types that they use in one file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
)

FORMAT: Final = "application/vnd.google.protobuf;version=3"
_GOOGLE = "google/protobuf/"
_LABELS = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional ",
    FieldDescriptorProto.LABEL_REQUIRED: "required ",
    FieldDescriptorProto.LABEL_REPEATED: "repeated ",
}


def of(message: Any) -> str:
    """Returns a .proto file with a message and all types that its fields use.

    The names of types of other packages are prefixed with the package. Types of google/protobuf are
    imported, because every protobuf reader has them.
    """
    return "\n".join(_Text(message).lines()) + "\n"


class _Text:
    """Writes one file.

    Args:
        root: the descriptor of the message.
    """

    def __init__(self, root: Any) -> None:
        self._package: str = root.file.package
        self._imports: set[str] = set()
        self._root = _outermost(root)
        self._marked = root.full_name
        self._types: dict[str, Any] = {}
        self._collect(self._root)
        files = {one.file.name: one.file for one in self._types.values()}
        self._is_proto2 = any(_is_proto2(file) for file in files.values())

    def lines(self) -> Iterator[str]:
        """Yields the lines."""
        yield f'syntax = "{"proto2" if self._is_proto2 else "proto3"}";'
        if self._package:
            yield ""
            yield f"package {self._package};"
        if self._imports:
            yield ""
            yield from (f'import "{name}";' for name in sorted(self._imports))
        for one in self._types.values():
            proto = _proto_of(one)
            proto.name = self._name(one.full_name, one).rpartition(".")[2]
            yield ""
            if isinstance(proto, EnumDescriptorProto):
                yield from self._enum(proto)
            else:
                yield from self._message(proto, one)

    def _collect(self, one: Any) -> None:
        """Notes an outermost type and all types that it uses."""
        if one.full_name in self._types:
            return
        if one.file.name.startswith(_GOOGLE):
            self._imports.add(one.file.name)
            return
        self._types[one.full_name] = one
        waiting = [one]
        while waiting:
            message = waiting.pop()
            waiting += getattr(message, "nested_types", ())
            for field in getattr(message, "fields", ()):
                if (kind := field.message_type or field.enum_type) is not None:
                    self._collect(_outermost(kind))

    def _message(self, proto: DescriptorProto, descriptor: Any) -> Iterator[str]:
        if descriptor.full_name == self._marked:
            yield "// @RootNode"  # readers that expect one message take the marked one
        yield f"message {proto.name} {{"
        oneofs: dict[int, list[FieldDescriptorProto]] = {}
        for field in proto.field:
            if field.HasField("oneof_index") and not field.proto3_optional:
                oneofs.setdefault(field.oneof_index, []).append(field)
        written = set[int]()
        for field in proto.field:
            if field.HasField("oneof_index") and not field.proto3_optional:
                if field.oneof_index not in written:
                    written.add(field.oneof_index)
                    yield f"  oneof {proto.oneof_decl[field.oneof_index].name} {{"
                    for one in oneofs[field.oneof_index]:
                        yield f"    {self._field(one, descriptor, label='')}"
                    yield "  }"
            else:
                yield f"  {self._field(field, descriptor, label=None)}"
        yield from self._nested(proto, descriptor)
        yield "}"

    def _nested(self, proto: DescriptorProto, descriptor: Any) -> Iterator[str]:
        for nested in proto.nested_type:
            if not nested.options.map_entry:
                inner = descriptor.nested_types_by_name[nested.name]
                yield from (f"  {line}" for line in self._message(nested, inner))
        for enum in proto.enum_type:
            yield from (f"  {line}" for line in self._enum(enum))

    def _enum(self, proto: EnumDescriptorProto) -> Iterator[str]:
        yield f"enum {proto.name} {{"
        if len({value.number for value in proto.value}) < len(proto.value):
            yield "  option allow_alias = true;"
        for value in proto.value:
            yield f"  {value.name} = {value.number};"
        yield "}"

    def _field(self, proto: FieldDescriptorProto, message: Any, label: str | None) -> str:
        field = message.fields_by_name[proto.name]
        if proto.type == FieldDescriptorProto.TYPE_GROUP:
            return f"// {proto.name} = {proto.number} is a group"
        kind = self._type(field)
        is_map = kind.startswith("map<")
        if label is None:
            label = "" if is_map else self._label(proto, field)
        options = []
        if proto.json_name and proto.json_name != _camel(proto.name):
            options.append(f'json_name = "{proto.json_name}"')
        if proto.options.deprecated:
            options.append("deprecated = true")
        if self._is_proto2 and not is_map and field.is_packed:
            options.append("packed = true")
        tail = f" [{', '.join(options)}]" if options else ""
        return f"{label}{kind} {proto.name} = {proto.number}{tail};"

    def _label(self, proto: FieldDescriptorProto, field: Any) -> str:
        if proto.label == FieldDescriptorProto.LABEL_REPEATED or self._is_proto2:
            return _LABELS[proto.label]
        return "optional " if field.has_presence and field.message_type is None else ""

    def _type(self, field: Any) -> str:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            key, value = (self._type(inner.fields_by_name[name]) for name in ("key", "value"))
            return f"map<{key}, {value}>"
        if (named := inner or field.enum_type) is not None:
            return f".{self._name(named.full_name, _outermost(named))}"
        return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()

    def _name(self, name: str, outermost: Any) -> str:
        """Returns the full name of a type in this file."""
        package = outermost.file.package
        if package == self._package or outermost.file.name.startswith(_GOOGLE):
            return name
        rest = name.removeprefix(f"{package}.") if package else name
        flat = f"{package.replace('.', '_')}_{rest}" if package else f"_{rest}"
        return f"{self._package}.{flat}" if self._package else flat


def _outermost(one: Any) -> Any:
    while one.containing_type is not None:
        one = one.containing_type
    return one


def _proto_of(one: Any) -> Any:
    proto: Any = EnumDescriptorProto() if hasattr(one, "values_by_name") else DescriptorProto()
    one.CopyToProto(proto)
    return proto


def _is_proto2(file: Any) -> bool:
    """Returns whether a file cannot be written in proto3.

    In proto2 an enum may begin with a number other than 0, and fields may be required.
    """
    proto = descriptor_pb2.FileDescriptorProto()
    file.CopyToProto(proto)
    if proto.syntax == "proto3":
        return False
    return proto.syntax in ("", "proto2") or any(
        enum.values[0].number for enum in file.enum_types_by_name.values()
    )


def _camel(name: str) -> str:
    """Returns the JSON name that protobuf derives from a field's name."""
    first, *rest = name.split("_")
    return first + "".join(part[:1].upper() + part[1:] for part in rest)
