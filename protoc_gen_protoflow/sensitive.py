"""Finds sensitive fields, by message type, so that contracts with many types stay small.

Paths such as `order.card.number` would be too many where types contain each other. The runtime
walks a value once and looks up the type of each message in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from protoc_gen_protoflow.request import Declared, File, Request, options_pb2, text

if TYPE_CHECKING:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto

_ANY = "google.protobuf.Any"

#: The names of sensitive fields by the full name of the message type.
Fields = Mapping[str, tuple[str, ...]]


class SensitiveFields:
    """Finds sensitive fields, and the messages that contain one at any depth."""

    def __init__(self, request: Request) -> None:
        self._files = request.files
        self._messages = request.messages

    def holds(self, declared: Declared) -> bool:
        """Returns whether the message has a sensitive field, directly or in a nested message."""
        return declared.full_name in self._holders

    def of_module(self, file: File, messages: Iterable[Declared]) -> tuple[Fields, frozenset[str]]:
        """Returns what a module needs to hide the sensitive fields of the messages that it names.

        A message that contains an Any or has extensions can contain every message that the file or
        one of its imports declares.

        Args:
            file: the file of the module.
            messages: the messages that the module names.

        Returns:
            The fields of all types that these messages can contain, sorted; and the full names of
            those messages that can contain a sensitive field.
        """
        named = {declared.full_name for declared in messages}
        if not self._fields or not named:
            return {}, frozenset()
        # A type without a holder inside contains no sensitive field, so the search stops there.
        holding = named & self._holders
        found = _closure(holding, self._inside) & self._fields.keys()
        if opened := named & self._open:
            found |= self._known_to(file)
        fields = {name: self._fields[name] for name in sorted(found)}
        return fields, frozenset(holding | opened if fields else ())

    @cached_property
    def _fields(self) -> Fields:
        """Returns the sensitive fields of every type that has any."""
        found: dict[str, tuple[str, ...]] = {}
        for declared in self._messages.values():
            if options_pb2.field not in declared.file.ours:
                continue
            names = tuple(
                text(field.name) for field in declared.proto.field if _is_sensitive(field)
            )
            if names:
                found[declared.full_name] = names
        return found

    @cached_property
    def _holders(self) -> set[str]:
        """Returns the types with a sensitive field at any depth."""
        return _closure(self._fields, self._around) if self._fields else set()

    @cached_property
    def _open(self) -> set[str]:
        """Returns the types that can contain messages of types that their file does not name."""
        seeds = [
            declared.full_name
            for declared in self._messages.values()
            if declared.proto.extension_range or declared.full_name == _ANY
        ]
        return _closure(seeds, self._around)

    @cached_property
    def _inside(self) -> Mapping[str, list[str]]:
        """Returns the types with sensitive content among the field types of each type."""
        return {
            outer: [name for name in inner if name in self._holders]
            for outer, inner in self._types.items()
            if outer in self._holders
        }

    @cached_property
    def _types(self) -> Mapping[str, list[str]]:
        """Returns the types of the fields of each type."""
        return {
            declared.full_name: [
                self._messages[name].full_name
                for field in declared.proto.field
                if (name := field.type_name) in self._messages
            ]
            for declared in self._messages.values()
        }

    @cached_property
    def _around(self) -> Mapping[str, list[str]]:
        """Returns the types that have fields of each type."""
        found: dict[str, list[str]] = {}
        for outer, inner in self._types.items():
            for name in inner:
                found.setdefault(name, []).append(outer)
        return found

    @cached_property
    def _imports(self) -> Mapping[str, tuple[str, ...]]:
        return {name: file.imports for name, file in self._files.items()}

    @cached_property
    def _by_file(self) -> Mapping[str, list[str]]:
        """Returns the types with sensitive fields that each file declares."""
        found: dict[str, list[str]] = {}
        for name in self._fields:
            found.setdefault(self._messages[f".{name}"].file.name, []).append(name)
        return found

    def _known_to(self, file: File) -> set[str]:
        """Returns the types with sensitive fields that a file or one of its imports declares."""
        files = _closure([file.name], self._imports)
        return {name for path in files for name in self._by_file.get(path, ())}


def _closure(seeds: Iterable[str], edges: Mapping[str, Iterable[str]]) -> set[str]:
    """Returns the seeds and everything that can be reached from them."""
    found = set(seeds)
    waiting = list(found)
    while waiting:
        for name in edges.get(waiting.pop(), ()):
            if name not in found:
                found.add(name)
                waiting.append(name)
    return found


def _is_sensitive(field: FieldDescriptorProto) -> bool:
    return field.HasField("options") and field.options.Extensions[options_pb2.field].sensitive
