"""The request of protoc, with names resolved, comments and positions at hand.

A `DescriptorPool` would link too, but costs time and drops comments; all that is needed
is an index of messages by full name.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.compiler import plugin_pb2

# Options of ours can be read only when this is imported before a request is parsed.
from protoflow.v1 import options_pb2 as options_pb2

from protoc_gen_protoflow.names import module_stem
from protoc_gen_protoflow.problems import Place

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

# Field numbers in descriptor.proto, of which source paths are made.
FILE_MESSAGES, FILE_SERVICES, FILE_EXTENSIONS, FILE_OPTIONS = 4, 6, 7, 8
MESSAGE_FIELDS, MESSAGE_NESTED, MESSAGE_EXTENSIONS, MESSAGE_OPTIONS = 2, 3, 6, 7
SERVICE_METHODS, SERVICE_OPTIONS, METHOD_OPTIONS, FIELD_OPTIONS = 2, 3, 4, 8


class File:
    """One .proto file.

    Attributes:
        proto: its descriptor.
        name: its path, `shop/v1/orders.proto`.
        module: its Python module path without suffix, `shop.v1.orders`.
    """

    def __init__(self, proto: FileDescriptorProto) -> None:
        self.proto = proto
        self.name: str = proto.name
        self.module = module_stem(self.name)

    def full_name(self, name: str) -> str:
        """The full name of a top-level thing of this file."""
        package = self.proto.package
        return f"{package}.{name}" if package else name

    def position(self, path: tuple[int, ...]) -> tuple[int, int] | None:
        """Line and column, from 1, of the longest known prefix of a path."""
        for end in range(len(path), -1, -1):
            if found := self._positions.get(path[:end]):
                return found
        return None

    def comment(self, path: tuple[int, ...]) -> str:
        """The comment before the thing at a path, else the one after it."""
        return self._comments.get(path, "")

    @cached_property
    def messages(self) -> tuple[Declared, ...]:
        """Every message in the order of declaration, nested ones after their outer one."""
        return tuple(
            declared
            for index, proto in enumerate(self.proto.message_type)
            for declared in _declared(self, proto, (FILE_MESSAGES, index), "")
        )

    @cached_property
    def place(self) -> Place:
        """The place of the file itself."""
        return Place(self, (), self.proto.package)

    @cached_property
    def _comments(self) -> dict[tuple[int, ...], str]:
        return {
            tuple(location.path): comment
            for location in self.proto.source_code_info.location
            if (comment := location.leading_comments or location.trailing_comments)
        }

    @cached_property
    def _positions(self) -> dict[tuple[int, ...], tuple[int, int]]:
        found: dict[tuple[int, ...], tuple[int, int]] = {}
        for location in self.proto.source_code_info.location:
            # The location of the whole file says nothing about a mistake in it.
            if location.path:
                line, column = location.span[:2]
                found.setdefault(tuple(location.path), (line + 1, column + 1))
        return found


class Declared(NamedTuple):
    """A message as it is declared.

    Attributes:
        file: the file it is declared in.
        proto: its descriptor.
        path: its source path.
        name: its name with the messages around it, `Order.Line`.
        full_name: its full name, `shop.v1.Order.Line`.
    """

    file: File
    proto: DescriptorProto
    path: tuple[int, ...]
    name: str
    full_name: str

    @property
    def place(self) -> Place:
        """Where it is declared."""
        return Place(self.file, self.path, self.full_name)


class Request:
    """All files of a request.

    Attributes:
        parameter: the plugin's parameters as given.
        files: every file, imported ones included, by path.
        wanted: the files to generate for.
        messages: every message by its full name with a leading dot.
    """

    def __init__(self, data: bytes) -> None:
        request = plugin_pb2.CodeGeneratorRequest.FromString(data)
        # These keep options that protoc strips from `proto_file` (source retention).
        sources = {proto.name: proto for proto in request.source_file_descriptors}
        self.parameter: str = request.parameter
        self.files: dict[str, File] = {
            proto.name: File(sources.get(proto.name, proto)) for proto in request.proto_file
        }
        self.wanted = [self.files[name] for name in request.file_to_generate]
        self.messages: dict[str, Declared] = {
            f".{declared.full_name}": declared
            for file in self.files.values()
            for declared in file.messages
        }


def _declared(
    file: File, proto: DescriptorProto, path: tuple[int, ...], outer: str
) -> Iterator[Declared]:
    name = outer + proto.name
    yield Declared(file, proto, path, name, file.full_name(name))
    for index, inner in enumerate(proto.nested_type):
        yield from _declared(file, inner, (*path, MESSAGE_NESTED, index), f"{name}.")
