"""Finds the options of a file that belong to Protoflow.

All users of protobuf share the extension numbers of options, so a number does not identify an
option. An option belongs to Protoflow if its file can see options.proto, and no other extension
with the same number.

Protoflow's own numbers change once, when registered ones are assigned. So options are read under
the numbers of the options.proto of the request, which may be an older or a newer copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from protoflow.error_codes import OTHER_OPTIONS_PROTO

from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.request import (
    FIELD_OPTIONS,
    FILE_DEPENDENCIES,
    FILE_OPTIONS,
    FILE_SERVICES,
    MESSAGE_FIELDS,
    MESSAGE_OPTIONS,
    METHOD_OPTIONS,
    SERVICE_METHODS,
    SERVICE_OPTIONS,
    File,
    Location,
    Request,
    options_pb2,
    text,
)

if TYPE_CHECKING:
    from google.protobuf.descriptor import FieldDescriptor
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

_PACKAGE = "protoflow.v1"
_PATH = "protoflow/v1/options.proto"


def _extended(own: FieldDescriptor) -> str:
    """Returns the full name of the options that an extension extends."""
    return own.containing_type.full_name if own.containing_type else ""


_BY_NAME: Mapping[str, Any] = options_pb2.DESCRIPTOR.extensions_by_name
_ALL = frozenset(_BY_NAME.values())


class Foreign(NamedTuple):
    """A foreign extension with the number of a Protoflow option."""

    name: str
    file: str


def mark(request: Request) -> None:
    """Records for each file of a request which of its options belong to Protoflow."""
    moved = _moved(request.files.get(_PATH))
    by_number = _by_number(moved)
    foreign = {name: dict(_foreign(file, by_number)) for name, file in request.files.items()}
    foreign = {name: found for name, found in foreign.items() if found}
    importers = _importers(request.files)
    for name in importers:
        request.files[name].ours = _ALL
        if moved:
            _renumber(request.files[name], moved)
    if not foreign:
        return
    for name in importers:
        file = request.files[name]
        visible = [name, *request.visible(file)]
        taken = {own: others for other in visible for own, others in foreign.get(other, {}).items()}
        file.ours = _ALL - taken.keys()
        if _PATH in visible:
            file.clashing = taken


def check(file: File, problems: Problems) -> None:
    """Reports ambiguous options of a file, and a missing options.proto."""
    for index, path in enumerate(file.proto.dependency):
        if path != _PATH and text(path).endswith(f"/{_PATH}"):
            problems.add(
                file.place.at(FILE_DEPENDENCIES, index),
                f'imports {path}, which is not the same file as "{_PATH}"; import it by '
                "that name and give its directory to protoc: -I$(protoc-gen-protoflow --include)",
                OTHER_OPTIONS_PROTO,
            )
    if file.clashing:
        reported = set[Any]()
        for place, options, own in _options(file):
            other = file.clashing.get(own)
            if other is not None and own not in reported and options.HasExtension(own):
                reported.add(own)
                number = file.numbers.get(own.number, own.number)
                clash = _clash(own, number, other)
                problems.add(place.at(own.number), clash, OTHER_OPTIONS_PROTO)


def _moved(options_proto: File | None) -> dict[Any, int]:
    """Returns the extensions whose number in this options.proto is another one."""
    declared = options_proto.proto.extension if options_proto else ()
    found = ((_BY_NAME.get(text(one.name)), one.number) for one in declared)
    return {own: number for own, number in found if own is not None and own.number != number}


def _by_number(moved: Mapping[Any, int]) -> dict[tuple[str, int], Any]:
    """Returns the extensions by what they extend and their numbers, here and in the request."""
    numbers = [*((own, own.number) for own in _ALL), *moved.items()]
    return {(f".{_extended(own)}", number): own for own, number in numbers}


def _renumber(file: File, moved: Mapping[Any, int]) -> None:
    """Gives options that protobuf could not recognise under their number the number of here."""
    from protoflow.v1.numbers import unknown  # few requests need it

    file.numbers = {own.number: number for own, number in moved.items()}
    for _, options, own in _options(file):
        for data in unknown(options, moved[own]) if own in moved else ():
            options.Extensions[own].MergeFromString(data)


def _clash(own: Any, number: int, other: Foreign) -> str:
    return (
        f"option number {number} of {_extended(own)} belongs to "
        f"({own.full_name}) and to ({other.name}) in {other.file}, so it is ambiguous; "
        f"give ({other.name}) another number, or do not import both files here"
    )


def _options(file: File) -> Iterator[tuple[Location, Any, Any]]:
    """Yields every element of a file that has options, with each possible Protoflow option."""
    yield file.place.at(FILE_OPTIONS), file.proto.options, options_pb2.file
    for declared in file.messages:
        yield declared.place.at(MESSAGE_OPTIONS), declared.proto.options, options_pb2.message
        for index, field in enumerate(declared.proto.field):
            place = declared.place.at(MESSAGE_FIELDS, index, FIELD_OPTIONS)
            yield place, field.options, options_pb2.field
    for index, service in enumerate(file.proto.service):
        place = Location(file, (FILE_SERVICES, index), file.full_name(text(service.name)))
        yield place.at(SERVICE_OPTIONS), service.options, options_pb2.service
        for number, method in enumerate(service.method):
            inside = place.inside(text(method.name), SERVICE_METHODS, number, METHOD_OPTIONS)
            yield inside, method.options, options_pb2.consume
            yield inside, method.options, options_pb2.publish


def _importers(files: Mapping[str, File]) -> list[str]:
    """Returns the files that import options.proto, directly or indirectly."""
    users: dict[str, list[str]] = {}
    for name, file in files.items():
        for path in file.imports:
            users.setdefault(path, []).append(name)
    found: dict[str, None] = {}
    waiting = [_PATH]
    while waiting:
        for name in users.get(waiting.pop(), ()):
            if name not in found:
                found[name] = None
                waiting.append(name)
    return list(found)


def _foreign(file: File, by_number: Mapping[tuple[str, int], Any]) -> Iterator[tuple[Any, Foreign]]:
    """Yields the extensions of a file that have numbers of Protoflow options."""
    if file.package == _PACKAGE:
        return
    for extension, scope in _extensions(file):
        own = by_number.get((text(extension.extendee), extension.number))
        if own is not None:
            name = text(extension.name)
            yield own, Foreign(f"{scope}.{name}" if scope else name, file.name)


def _extensions(file: File) -> Iterator[tuple[FieldDescriptorProto, str]]:
    """Yields the extensions that a file declares, each with the scope of its name."""
    for extension in file.proto.extension:
        yield extension, file.package
    for declared in file.messages:
        for extension in declared.proto.extension:
            yield extension, declared.full_name
