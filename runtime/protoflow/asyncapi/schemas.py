"""JSON Schemas that describe the JSON form of messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

from google.protobuf.descriptor import FieldDescriptor

from protoflow.asyncapi import keywords, rules, scalars
from protoflow.asyncapi.comments import Comments, described
from protoflow.asyncapi.well_known import WELL_KNOWN, WRAPPED

#: A JSON Schema, draft 07.
Schema: TypeAlias = dict[str, Any]
#: Any: the stubs of protobuf's descriptors differ between versions.
Descriptor: TypeAlias = Any


class Schemas:
    """Collects the schemas of types, each once, under its full name.

    Args:
        comments: the comments of the .proto.
        sensitive: the names of the sensitive fields by the full name of their message.

    Attributes:
        components: the schemas so far.
    """

    def __init__(self, comments: Comments, sensitive: Mapping[str, Collection[str]]) -> None:
        self._comments = comments
        self._sensitive = sensitive
        self.components: dict[str, Schema] = {}

    def reference(self, message: Descriptor) -> Schema:
        """Returns a reference to the schema of a message, or the schema of a well-known type."""
        if (form := WELL_KNOWN.get(message.full_name)) is not None:
            return dict(form)
        if message.full_name in WRAPPED:
            return self._of_field(message.fields_by_name["value"])
        if message.full_name not in self.components:
            self.components[message.full_name] = {}  # a message may contain itself
            self.components[message.full_name] = self._message(message)
        return _reference_to(message)

    def _message(self, message: Descriptor) -> Schema:
        hidden = self._sensitive.get(message.full_name, ())
        required: list[str] = []
        properties: dict[str, Schema] = {}
        for field in message.fields:
            limits = rules.of_field(field)
            schema = self._of_field(field, limits)
            schema = _beside(schema, described(self._comment(field), summarized=False))
            extensions: Schema = {"x-protobuf-index": field.number}
            if field.name in hidden:
                extensions["x-protoflow-sensitive"] = True
            elif limits and limits.examples:
                extensions["examples"] = list(limits.examples)
            if field.GetOptions().deprecated:
                extensions["deprecated"] = True
            properties[field.json_name] = _beside(schema, extensions)
            if scalars.is_required(field) or (limits and limits.must_be_there):
                required.append(field.json_name)
        comment = described(self._comment(message), summarized=False)
        found: Schema = {"type": "object", **comment}
        if properties:
            found["properties"] = properties
        if required:
            found["required"] = required
        if groups := _choices(message):
            found |= groups[0] if len(groups) == 1 else {"allOf": groups}
        return found | rules.cel_of_message(message)

    def _of_field(self, field: Descriptor, limits: rules.Limits | None = None) -> Schema:
        if _is_map(field):
            return self._map(field, limits)
        if keywords.is_plural(field):
            items = self._single(field, limits.items if limits else None)
            return {"type": "array", "items": items, **(limits.keywords if limits else {})}
        return self._single(field, limits)

    def _map(self, field: Descriptor, limits: rules.Limits | None) -> Schema:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        schema: Schema = {
            "type": "object",
            "additionalProperties": self._single(value, limits.values if limits else None),
        }
        names = dict(scalars.key_form(key))
        if limits and limits.keys and key.type == FieldDescriptor.TYPE_STRING:
            names |= limits.keys.keywords
        if names:
            schema["propertyNames"] = names
        return {**schema, **(limits.keywords if limits else {})}

    def _single(self, field: Descriptor, limits: rules.Limits | None) -> Schema:
        if field.message_type is not None:
            schema = self._nested(field.message_type)
        elif field.enum_type is not None:
            schema = self._enum(field.enum_type)
        else:
            schema = dict(scalars.form(field))
        return rules.applied(schema, limits, _beside) if limits else schema

    def _nested(self, message: Descriptor) -> Schema:
        schema = self.reference(message)
        if message.full_name not in WRAPPED:
            return schema
        if "anyOf" in schema:
            return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return {**schema, "type": [*kinds, "null"]}

    def _enum(self, enum: Descriptor) -> Schema:
        if enum.full_name == "google.protobuf.NullValue":
            return {"type": "null"}
        if enum.full_name not in self.components:
            self.components[enum.full_name] = {
                "type": "string",
                **described(self._comment(enum), summarized=False),
                "enum": [value.name for value in enum.values],
            }
        return _reference_to(enum)

    def _comment(self, descriptor: Descriptor) -> str:
        return self._comments.get(descriptor.full_name, "")


def _is_map(field: Descriptor) -> bool:
    return bool(field.message_type is not None and field.message_type.GetOptions().map_entry)


def _reference_to(descriptor: Descriptor) -> Schema:
    return {"$ref": f"#/components/schemas/{descriptor.full_name}"}


def _beside(schema: Schema, added: Mapping[str, Any]) -> Schema:
    """Returns the schema with more keywords, in `allOf` if the schema is a `$ref`."""
    if not added:
        return schema
    if "$ref" in schema:
        return {"allOf": [schema], **added}
    # A rule's minimum replaces the minimum of unsigned numbers.
    clash = schema.keys() & added.keys() - {"minimum"}
    if not clash:
        return {**schema, **added}
    both = [*schema.get("allOf", ()), *added.get("allOf", ())]
    own = {name: added[name] for name in added if name in clash - {"allOf"}}
    rest = {name: value for name, value in added.items() if name not in clash}
    return {**schema, **rest, "allOf": [*both, *([own] if own else ())]}


def _choices(message: Descriptor) -> list[Schema]:
    """Returns, for each oneof, a schema of the fields that may be set."""
    groups = []
    for oneof in message.oneofs:
        fields = [field.json_name for field in oneof.fields]
        if not _is_synthetic(oneof):
            groups.append(_one_of(fields, required=rules.is_required_oneof(oneof)))
    groups += [
        _one_of([message.fields_by_name[name].json_name for name in names], required=required)
        for names, required in rules.oneofs_of_message(message)
    ]
    return groups


def _one_of(fields: list[str], *, required: bool) -> Schema:
    present: list[Schema] = [{"required": [name]} for name in fields]
    if not required:
        present.append({"not": {"anyOf": [*present]}})
    return {"oneOf": present}


def _is_synthetic(oneof: Descriptor) -> bool:
    """Returns whether the oneof only stores the presence of an `optional` field."""
    return len(oneof.fields) == 1 and oneof.name == f"_{oneof.fields[0].name}"
