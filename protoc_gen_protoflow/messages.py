"""Reads the contracts of files and messages from their options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from protoflow.error_codes import FIELD_ROLE, NAME_RULE, NO_EFFECT

from protoc_gen_protoflow import value_rules
from protoc_gen_protoflow.annotations import ROLES
from protoc_gen_protoflow.contract import FileContract, Leaf, MessageContract
from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.request import (
    FIELD_OPTIONS,
    FILE_EXTENSIONS,
    FILE_OPTIONS,
    MESSAGE_EXTENSIONS,
    MESSAGE_FIELDS,
    MESSAGE_OPTIONS,
    Declared,
    File,
    Location,
    Request,
    options_pb2,
    text,
)
from protoc_gen_protoflow.text import literal

if TYPE_CHECKING:
    from protoc_gen_protoflow.options import OptionReader
    from protoc_gen_protoflow.sensitive import SensitiveFields

_NUMBER = options_pb2.MESSAGE_FIELD_NUMBER
_OPTIONS = tuple(field.name for field in options_pb2.MessageOptions.DESCRIPTOR.fields)
#: The fields of a `MessageSpec`, in the order in which generated modules write them.
_ORDER = dict.fromkeys(("type", "topic", *ROLES, *_OPTIONS))


class MessageReader:
    """Reads each file and each message once, and reports mistakes."""

    def __init__(
        self,
        request: Request,
        problems: Problems,
        reader: OptionReader,
        sensitive: SensitiveFields,
    ) -> None:
        self._request = request
        self._problems = problems
        self._reader = reader
        self._sensitive = sensitive
        self._files: dict[str, FileContract] = {}
        self._messages: dict[str, MessageContract] = {}

    def file(self, file: File) -> FileContract:
        """Returns the contract of a file."""
        if file.name not in self._files:
            self._files[file.name] = self._read_file(file)
        return self._files[file.name]

    def message(self, declared: Declared) -> MessageContract:
        """Returns the contract of a message."""
        found = self._messages.get(declared.full_name)
        if found is None:
            found = self._messages[declared.full_name] = self._read_message(declared)
        return found

    def topic(self, place: Location, what: str, topic: str) -> str:
        """Returns a topic of an option, with the prefix of its file."""
        prefix = self.file(place.file).topic_prefix
        full = prefix + topic
        self._problems.extend(
            place, value_rules.topic_problems(what, full if topic else ""), NAME_RULE
        )
        self._problems.extend(place, value_rules.doubled_problems(what, topic, prefix), NAME_RULE)
        return full

    def marks_inside(self, declared: Declared) -> list[str]:
        """Yields the fields marked as partition key in nested messages of a message."""
        found: list[str] = []
        for field in declared.proto.field:
            inner = self._request.messages.get(text(field.type_name))
            key = self.message(inner).partition_key if inner else None
            if key is not None:
                found.append(f"{text(field.name)}.{key}")
        return found

    def check_extensions(self, file: File) -> None:
        """Reports field options on elements for which they have no meaning."""
        self._check_extensions(file.proto.extension, file.place.at(FILE_EXTENSIONS))
        for declared in file.messages:
            if declared.proto.extension:
                place = declared.place.at(MESSAGE_EXTENSIONS)
                self._check_extensions(declared.proto.extension, place)

    def _check_extensions(
        self, extensions: Iterable[FieldDescriptorProto], place: Location
    ) -> None:
        for index, field in enumerate(extensions):
            if place.file.says(field.options, options_pb2.field):
                self._problems.add(
                    place.at(index, FIELD_OPTIONS, _NUMBER),
                    "(protoflow.v1.field) has no effect on the extension "
                    f"{text(field.name)}; remove it",
                    NO_EFFECT,
                )

    def _read_file(self, file: File) -> FileContract:
        if not file.says(file.proto.options, options_pb2.file):
            return FileContract(topic_prefix="", messages={}, delivery={})
        options = file.proto.options.Extensions[options_pb2.file]
        place = file.place.at(FILE_OPTIONS, _NUMBER)
        values = self._reader.values(options, place, level=0)
        prefix = ""
        if leaf := values.pop("topic_prefix", None):
            found = list(value_rules.prefix_problems("topic_prefix", str(leaf.value)))
            self._problems.extend(leaf.place, found, NAME_RULE)
            prefix = "" if found else str(leaf.value)
        return FileContract(
            topic_prefix=prefix,
            messages=values,
            delivery=self._reader.policy(options.delivery, place.at(4), level=0),
        )

    def _read_message(self, declared: Declared) -> MessageContract:
        roles = self._read_fields(declared)
        name = declared.full_name
        values = {
            "type": Leaf(name, literal(name), declared.place, level=0),
            **self.file(declared.file).messages,
            **roles,
        }
        aliases: tuple[str, ...] = ()
        is_annotated = bool(roles) or self._sensitive.holds(declared)
        proto = declared.proto
        if proto.HasField("options") and declared.file.says(proto.options, options_pb2.message):
            options = proto.options.Extensions[options_pb2.message]
            values |= self._own_values(declared, options)
            aliases = self._aliases(declared, options)
            is_annotated = is_annotated or bool(options.ListFields())
        ordered = {name: values[name] for name in _ORDER if name in values}
        return MessageContract(declared, ordered, aliases, is_annotated)

    def _own_values(
        self, declared: Declared, options: options_pb2.MessageOptions
    ) -> dict[str, Leaf]:
        values = self._reader.values(options, _place_of_options(declared), level=1)
        if leaf := values.get("topic"):
            topic = self.topic(leaf.place, "topic", str(leaf.value))
            values["topic"] = leaf._replace(value=topic, text=literal(topic))
        return values

    def _aliases(self, declared: Declared, options: options_pb2.MessageOptions) -> tuple[str, ...]:
        number = options_pb2.MessageOptions.ALIASES_FIELD_NUMBER
        taken = {options.type or declared.full_name}
        for index, alias in enumerate(options.aliases):
            place = _place_of_options(declared).at(number, index)
            self._problems.extend(place, value_rules.text_problems("alias", alias), NAME_RULE)
            if alias in taken:
                self._problems.add(
                    place,
                    f"alias {alias!r} is named twice or is the type itself; remove it",
                    NAME_RULE,
                )
            taken.add(alias)
        return tuple(options.aliases)

    def _read_fields(self, declared: Declared) -> dict[str, Leaf]:
        """Returns the names of the fields with a role, by role."""
        roles: dict[str, Leaf] = {}
        for index, field in enumerate(declared.proto.field):
            if not field.HasField("options"):
                continue
            if not declared.file.says(field.options, options_pb2.field):
                continue
            options = field.options.Extensions[options_pb2.field]
            place = declared.place.at(MESSAGE_FIELDS, index, FIELD_OPTIONS, _NUMBER)
            for role, mark in self._reader.values(options, place, level=1).items():
                if role in ROLES and mark.value:
                    self._take_role(roles, role, field, mark.place)
        return roles

    def _take_role(
        self, roles: dict[str, Leaf], role: str, field: FieldDescriptorProto, place: Location
    ) -> None:
        name = text(field.name)
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            self._problems.add(
                place, f"{role} {name} is repeated; choose a singular field", FIELD_ROLE
            )
        elif field.type not in ROLES[role].types:
            kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
            self._problems.add(
                place,
                f"{role} {name} is of type {kind}; "
                f"choose a {ROLES[role].kinds} field of the message",
                FIELD_ROLE,
            )
        if role in roles:
            self._problems.add(
                place,
                f"{roles[role].value} and {name} are both marked as {role}; "
                "keep the mark on one of them",
                FIELD_ROLE,
            )
        roles.setdefault(role, Leaf(name, literal(name), place, level=1))


def _place_of_options(declared: Declared) -> Location:
    return declared.place.at(MESSAGE_OPTIONS, _NUMBER)
