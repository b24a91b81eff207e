"""Reads the contracts of files and messages out of their options."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from protoc_gen_protoflow import check
from protoc_gen_protoflow.contract import FileContract, MessageContract
from protoc_gen_protoflow.problems import Location, Problems
from protoc_gen_protoflow.request import (
    FIELD_OPTIONS,
    FILE_EXTENSIONS,
    FILE_OPTIONS,
    MESSAGE_EXTENSIONS,
    MESSAGE_FIELDS,
    MESSAGE_OPTIONS,
    Declared,
    File,
    Request,
    options_pb2,
    text,
)

if TYPE_CHECKING:
    from protoc_gen_protoflow.policy import PolicyReader
    from protoc_gen_protoflow.sensitive import SensitiveFields

_INTEGERS = frozenset(
    FieldDescriptorProto.Type.Value(f"TYPE_{kind}{bits}")
    for kind in ("INT", "UINT", "SINT", "FIXED", "SFIXED")
    for bits in (32, 64)
)
_SUBJECTS = _INTEGERS | {FieldDescriptorProto.TYPE_STRING}
_KEYS = _SUBJECTS | {FieldDescriptorProto.TYPE_BYTES}
_NUMBER = options_pb2.MESSAGE_FIELD_NUMBER


class MessageReader:
    """Reads each file and each message once, and notes what is wrong."""

    def __init__(
        self,
        request: Request,
        problems: Problems,
        policies: PolicyReader,
        sensitive: SensitiveFields,
    ) -> None:
        self._request = request
        self._problems = problems
        self._policies = policies
        self._sensitive = sensitive
        self._files: dict[str, FileContract] = {}
        self._messages: dict[str, MessageContract] = {}

    def file(self, file: File) -> FileContract:
        """The contract of a file."""
        if file.name not in self._files:
            self._files[file.name] = self._read_file(file)
        return self._files[file.name]

    def message(self, declared: Declared) -> MessageContract:
        """The contract of a message."""
        found = self._messages.get(declared.full_name)
        if found is None:
            found = self._messages[declared.full_name] = self._read_message(declared)
        return found

    def topic(self, place: Location, what: str, topic: str) -> str:
        """A topic as it is written at a place, with the prefix of the file before it."""
        prefix = self.file(place.file).topic_prefix
        full = prefix + topic
        self._problems.extend(place, check.topic_problems(what, full if topic else ""))
        self._problems.extend(place, check.doubled_problems(what, topic, prefix))
        return full

    def marks_inside(self, declared: Declared) -> list[str]:
        """The fields marked as partition key in messages that are fields of a message."""
        found: list[str] = []
        for field in declared.proto.field:
            inner = self._request.messages.get(text(field.type_name))
            key = self.message(inner).partition_key if inner else None
            if key is not None:
                found.append(f"{text(field.name)}.{key}")
        return found

    def check_extensions(self, file: File) -> None:
        """Notes field options where they mean nothing."""
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
                    "(protoflow.v1.field) means nothing on the extension "
                    f"{text(field.name)}; remove it",
                )

    def _read_file(self, file: File) -> FileContract:
        if not file.says(file.proto.options, options_pb2.file):
            return FileContract(topic_prefix="", source=None, encoding=None, delivery={})
        options = file.proto.options.Extensions[options_pb2.file]
        place = file.place.at(FILE_OPTIONS, _NUMBER)
        self._policies.unknown(options, place)
        prefix = options.topic_prefix
        if options.HasField("topic_prefix"):
            found = list(check.prefix_problems("topic_prefix", prefix))
            self._problems.extend(place.at(1), found)
            prefix = "" if found else prefix
        return FileContract(
            topic_prefix=prefix,
            source=self._source(options, place),
            encoding=self._policies.enum(options, "encoding", place),
            delivery=self._policies.leaves(options.delivery, place.at(4), level=0),
        )

    def _read_message(self, declared: Declared) -> MessageContract:
        file = self.file(declared.file)
        roles = self._read_fields(declared)
        holds_sensitive = self._sensitive.holds(declared)
        contract = MessageContract(
            declared=declared,
            type=declared.full_name,
            partition_key=roles.get("partition_key"),
            subject=roles.get("subject"),
            source=file.source,
            encoding=file.encoding,
            holds_sensitive=holds_sensitive,
            is_annotated=bool(roles) or holds_sensitive,
        )
        proto = declared.proto
        if proto.HasField("options") and declared.file.says(proto.options, options_pb2.message):
            return self._with_options(contract, proto.options.Extensions[options_pb2.message])
        return contract

    def _with_options(
        self, contract: MessageContract, options: options_pb2.MessageOptions
    ) -> MessageContract:
        declared = contract.declared
        place = declared.place.at(MESSAGE_OPTIONS, _NUMBER)
        self._policies.unknown(options, place)
        topic = None
        if options.HasField("topic"):
            topic = self.topic(place.at(1), "topic", options.topic)
        return contract._replace(
            type=self._text(options, "type", place) or declared.full_name,
            topic=topic,
            source=self._source(options, place) or contract.source,
            data_schema=self._text(options, "data_schema", place),
            encoding=self._policies.enum(options, "encoding", place) or contract.encoding,
            aliases=self._aliases(declared, options, place.at(6)) if options.aliases else (),
            is_annotated=contract.is_annotated or bool(options.ListFields()),
        )

    def _text(
        self,
        options: options_pb2.MessageOptions,
        field: Literal["type", "data_schema"],
        place: Location,
    ) -> str | None:
        if not options.HasField(field):
            return None
        value: str = getattr(options, field)
        number = options.DESCRIPTOR.fields_by_name[field].number
        self._problems.extend(place.at(number), check.text_problems(field, value))
        return value

    def _source(
        self, options: options_pb2.MessageOptions | options_pb2.FileOptions, place: Location
    ) -> str | None:
        if not options.HasField("source"):
            return None
        number = options.DESCRIPTOR.fields_by_name["source"].number
        self._problems.extend(place.at(number), check.source_problems("source", options.source))
        return options.source

    def _aliases(
        self, declared: Declared, options: options_pb2.MessageOptions, place: Location
    ) -> tuple[str, ...]:
        taken = {options.type or declared.full_name}
        for index, alias in enumerate(options.aliases):
            self._problems.extend(place.at(index), check.text_problems("alias", alias))
            if alias in taken:
                self._problems.add(
                    place.at(index),
                    f"alias {alias!r} is named twice or is the type itself; remove it",
                )
            taken.add(alias)
        return tuple(options.aliases)

    def _read_fields(self, declared: Declared) -> dict[str, str]:
        """The names of the partition key and of the subject."""
        roles: dict[str, str] = {}
        for index, field in enumerate(declared.proto.field):
            if not field.HasField("options"):
                continue
            if not declared.file.says(field.options, options_pb2.field):
                continue
            options = field.options.Extensions[options_pb2.field]
            place = declared.place.at(MESSAGE_FIELDS, index, FIELD_OPTIONS, _NUMBER)
            self._policies.unknown(options, place)
            if options.partition_key:
                self._role(roles, "partition_key", field, place.at(1))
            if options.subject:
                self._role(roles, "subject", field, place.at(2))
        return roles

    def _role(
        self, roles: dict[str, str], role: str, field: FieldDescriptorProto, place: Location
    ) -> None:
        name = text(field.name)
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            self._problems.add(place, f"{role} {name} is repeated; choose a singular field")
        elif field.type not in (_KEYS if role == "partition_key" else _SUBJECTS):
            kinds = "string, bytes or integer" if role == "partition_key" else "string or integer"
            kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
            self._problems.add(
                place,
                f"{role} {name} is of type {kind}; choose a {kinds} field of the message",
            )
        if role in roles:
            self._problems.add(
                place,
                f"{roles[role]} and {name} are both marked as {role}; keep the mark on one of them",
            )
        roles.setdefault(role, name)
