"""The request of protoc, with resolved names, comments and positions.

A `DescriptorPool` would also resolve names, but takes time and drops comments; an index of messages
by full name is enough. Requests may come from other programs than protoc or buf. This module
refuses or tolerates what those two never write, so that no other module has to handle it.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.compiler import plugin_pb2
from protoflow.error_codes import BAD_REQUEST, coded

# protobuf recognises these options only if this module is imported before a request is parsed.
from protoflow.v1 import options_pb2 as options_pb2

from protoc_gen_protoflow.errors import UserError
from protoc_gen_protoflow.names import module_stem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

# Field numbers in descriptor.proto; source paths consist of them.
FILE_DEPENDENCIES, FILE_MESSAGES, FILE_SERVICES, FILE_EXTENSIONS, FILE_OPTIONS = 3, 4, 6, 7, 8
MESSAGE_FIELDS, MESSAGE_NESTED, MESSAGE_EXTENSIONS, MESSAGE_OPTIONS = 2, 3, 6, 7
SERVICE_METHODS, SERVICE_OPTIONS, METHOD_OPTIONS, FIELD_OPTIONS = 2, 3, 4, 8


def text(value: str | bytes) -> str:
    """Returns a string of a descriptor; protobuf returns bytes if it is not UTF-8."""
    return value if isinstance(value, str) else value.decode(errors="replace")


class File:
    """One .proto file.

    Attributes:
        proto: its descriptor.
        name: its path, for example `shop/v1/orders.proto`.
        package: its package, for example `shop.v1`.
        module: its Python module path without suffix, for example `shop.v1.orders`.
        ours: the extensions that are Protoflow's options in this file; see `ours`.
        clashing: Protoflow's extensions whose numbers another extension in its imports has, too.
        numbers: the numbers of Protoflow's extensions in the request, by those that the plugin
            has; empty if they are the same.
    """

    def __init__(self, proto: FileDescriptorProto) -> None:
        self.proto = proto
        self.name = text(proto.name)
        self.package = text(proto.package)
        self.module = module_stem(self.name)
        self.ours: frozenset[Any] = frozenset()
        self.clashing: Mapping[Any, Any] = {}
        self.numbers: Mapping[int, int] = {}

    @cached_property
    def imports(self) -> tuple[str, ...]:
        """The paths of all files that this file imports, in any way."""
        return (*self.proto.dependency, *self.proto.option_dependency)

    def says(self, options: Any, extension: Any) -> bool:
        """Whether the options of an element in this file contain this Protoflow option."""
        return extension in self.ours and bool(options.HasExtension(extension))

    def full_name(self, name: str) -> str:
        """Returns the full name of a top-level element of this file."""
        return f"{self.package}.{name}" if self.package else name

    def position(self, path: tuple[int, ...]) -> tuple[int, int] | None:
        """Returns line and column, from 1, of the longest known prefix of a path."""
        if self.numbers:
            path = tuple(self.numbers.get(step, step) for step in path)
        for end in range(len(path), -1, -1):
            if found := self._positions.get(path[:end]):
                return found
        return None

    def comment(self, path: tuple[int, ...]) -> str:
        """Returns the comment before the element at a path, or the comment after it."""
        return self._comments.get(path, "")

    @cached_property
    def messages(self) -> tuple[Declared, ...]:
        """Returns the messages in the order of declaration; nested ones follow their outer one."""
        waiting: list[tuple[DescriptorProto, tuple[int, ...], str]] = [
            (proto, (FILE_MESSAGES, index), "")
            for index, proto in reversed([*enumerate(self.proto.message_type)])
        ]
        found: list[Declared] = []
        while waiting:
            proto, path, outer = waiting.pop()
            name = outer + text(proto.name)
            found.append(Declared(self, proto, path, name, self.full_name(name)))
            if proto.nested_type:
                waiting += [
                    (inner, (*path, MESSAGE_NESTED, index), f"{name}.")
                    for index, inner in reversed([*enumerate(proto.nested_type)])
                ]
        return tuple(found)

    @cached_property
    def place(self) -> Location:
        """The location of the file itself."""
        return Location(self, (), self.package)

    @cached_property
    def _comments(self) -> dict[tuple[int, ...], str]:
        return {
            tuple(location.path): text(comment)
            for location in self.proto.source_code_info.location
            if (comment := location.leading_comments or location.trailing_comments)
        }

    @cached_property
    def _positions(self) -> dict[tuple[int, ...], tuple[int, int]]:
        found: dict[tuple[int, ...], tuple[int, int]] = {}
        for location in self.proto.source_code_info.location:
            # The location of the whole file does not help to find a mistake in it.
            if location.path and len(location.span) > 1:
                line, column = location.span[:2]
                found.setdefault(tuple(location.path), (line + 1, column + 1))
        return found


class Location(NamedTuple):
    """A location in a .proto file.

    Attributes:
        file: the file.
        path: the path of the descriptor, as in `SourceCodeInfo.Location.path`.
        name: the full name of the element; empty for a file without package.
    """

    file: File
    path: tuple[int, ...]
    name: str

    def at(self, *path: int) -> Location:
        """Returns the location of a nested element."""
        return Location(self.file, self.path + path, self.name)

    def inside(self, name: str, *path: int) -> Location:
        """Returns the location of a nested element that has its own name."""
        return Location(self.file, self.path + path, f"{self.name}.{name}")


class Declared(NamedTuple):
    """A message declaration.

    Attributes:
        file: the file that declares it.
        proto: its descriptor.
        path: its source path.
        name: its name with the messages around it, for example `Order.Line`.
        full_name: its full name, for example `shop.v1.Order.Line`.
    """

    file: File
    proto: DescriptorProto
    path: tuple[int, ...]
    name: str
    full_name: str

    @property
    def place(self) -> Location:
        """The location of the declaration."""
        return Location(self.file, self.path, self.full_name)


class Request:
    """All files of a request.

    Attributes:
        parameter: the plugin's parameters as given.
        files: every file, imported ones included, by path.
        wanted: the files to generate for, by path.
        messages: every message by its full name with a leading dot.
    """

    def __init__(self, data: bytes) -> None:
        request = plugin_pb2.CodeGeneratorRequest.FromString(data)
        # These contain options that protoc removes from `proto_file` (source retention).
        sources = {proto.name: proto for proto in request.source_file_descriptors}
        self.parameter = text(request.parameter)
        files = [File(sources.get(proto.name, proto)) for proto in request.proto_file]
        self.files: dict[str, File] = {file.name: file for file in files}
        self._visible: dict[str, list[str]] = {}
        self._wanted = [text(name) for name in request.file_to_generate]
        self.messages: dict[str, Declared] = {
            f".{declared.full_name}": declared
            for file in self.files.values()
            for declared in file.messages
        }

    @cached_property
    def wanted(self) -> dict[str, File]:
        """Returns the files to generate. Raises `UserError` if the request lacks one of them."""
        if missing := [name for name in self._wanted if name not in self.files]:
            raise UserError(
                "\n".join(
                    coded(
                        f"{name!r} must be generated, but the request lacks it; make requests "
                        "with protoc or buf",
                        BAD_REQUEST,
                    )
                    for name in missing
                )
            )
        return {name: self.files[name] for name in sorted(self._wanted)}

    def visible(self, file: File) -> list[str]:
        """Returns the imports of a file, and their public imports, sorted."""
        if file.name not in self._visible:
            self._visible[file.name] = self._find_visible(file)
        return self._visible[file.name]

    def _find_visible(self, file: File) -> list[str]:
        found: dict[str, None] = {}
        waiting = list(file.imports)
        while waiting:
            name = waiting.pop()
            if name not in found and name in self.files:
                found[name] = None
                proto = self.files[name].proto
                public = [n for n in proto.public_dependency if 0 <= n < len(proto.dependency)]
                waiting += [proto.dependency[index] for index in public]
        return sorted(found)
