"""Messages: name, content type, headers, payload and key."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from protoflow import wire
from protoflow.asyncapi import proto_text
from protoflow.asyncapi.bindings import with_fields
from protoflow.asyncapi.channels import full_name
from protoflow.asyncapi.comments import Comments, described
from protoflow.asyncapi.deployment import Deployment
from protoflow.asyncapi.scalars import kind
from protoflow.asyncapi.schemas import Schemas
from protoflow.contract.spec import Encoding, MessageSpec

#: The trait that all messages have.
TRAIT = "cloudEvents"
_TRAIT_IN_ENVELOPE = "cloudEventsStructured"
_TEXT = {"type": "string"}
_URI = {"type": "string", "format": "uri-reference"}
_CONTENT_TYPES = {Encoding.PROTOBUF: wire.PROTOBUF, Encoding.JSON: wire.JSON}

#: The fields of a `MessageSpec` for which AsyncAPI has fields of its own.
_STANDARD = {"type", "message_class", "topic", "source", "data_schema", "encoding"}
#: The extensions for the other fields.
_EXTENSIONS = {
    field.name: f"x-protoflow-{field.name.removeprefix('partition_').replace('_', '-')}"
    for field in fields(MessageSpec)
    if field.name not in _STANDARD
}


class Messages:
    """Collects the messages of a document.

    Args:
        deployment: the facts about the deployed contract.
        schemas: collects the schemas of the payloads.
        comments: the comments of the .proto.
        protobuf: whether payloads are described in protobuf's language.

    Attributes:
        objects: the messages so far, by full name.
    """

    def __init__(
        self, deployment: Deployment, schemas: Schemas, comments: Comments, *, protobuf: bool
    ) -> None:
        self._deployment = deployment
        self._bindings = deployment.bindings
        self._schemas = schemas
        self._comments = comments
        self._protobuf = protobuf
        self.objects: dict[str, dict[str, Any]] = {}

    def add(self, spec: MessageSpec) -> None:
        """Adds a message, unless it was added before."""
        name = full_name(spec)
        if name not in self.objects:
            self.objects[name] = self._message(spec, name)

    def traits(self) -> Mapping[str, Any]:
        """Returns the trait with the headers and the correlation id that all messages have."""
        if self._deployment.structured:
            return {_TRAIT_IN_ENVELOPE: _trait({"properties": self._own_headers()})}
        prefix = self._bindings.header_prefix
        attributes = {
            f"{prefix}id": {"type": "string", "minLength": 1},
            f"{prefix}source": _URI,
            f"{prefix}specversion": {"type": "string", "enum": ["1.0"]},
            f"{prefix}type": {"type": "string", "minLength": 1},
        }
        time = {f"{prefix}time": {"type": "string", "format": "date-time"}}
        headers: dict[str, Any] = {
            "required": [*attributes],
            "properties": {**attributes, **time, **self._own_headers()},
        }
        return {TRAIT: _trait(headers)}

    def content_type(self, spec: MessageSpec) -> str:
        """Returns the content type of a message."""
        if self._deployment.structured:
            return wire.CLOUDEVENTS_JSON
        return _CONTENT_TYPES[spec.encoding or self._deployment.encoding]

    def _message(self, spec: MessageSpec, name: str) -> dict[str, Any]:
        descriptor: Any = spec.message_class.DESCRIPTOR
        trait = _TRAIT_IN_ENVELOPE if self._deployment.structured else TRAIT
        message: dict[str, Any] = {
            "name": name,
            "title": descriptor.name,
            **described(self._comments.get(name, "")),
            "contentType": self.content_type(spec),
            "traits": [{"$ref": f"#/components/messageTraits/{trait}"}],
            **self._headers(spec),
            "payload": self._payload(spec),
        }
        if descriptor.GetOptions().deprecated:
            message["tags"] = [{"name": "deprecated"}]
        key = descriptor.fields_by_name[spec.partition_key] if spec.partition_key else None
        with_fields(message, self._bindings.message(spec.type, _key_form(key) if key else None))
        message["x-protobuf-message"] = name
        said = {key: _said(spec, aspect) for aspect, key in _EXTENSIONS.items()}
        return message | {key: value for key, value in said.items() if value}

    def _payload(self, spec: MessageSpec) -> dict[str, Any]:
        descriptor: Any = spec.message_class.DESCRIPTOR
        if self._protobuf and not self._deployment.structured:
            return {"schemaFormat": proto_text.FORMAT, "schema": proto_text.of(descriptor)}
        schema = self._schemas.reference(descriptor)
        return self._envelope(spec, schema) if self._deployment.structured else schema

    def _envelope(self, spec: MessageSpec, schema: dict[str, Any]) -> dict[str, Any]:
        """Returns the schema of a CloudEvent in structured mode."""
        encoding = spec.encoding or self._deployment.encoding
        data = {
            "data": schema
        } if encoding is Encoding.JSON else {
            "data_base64": {"type": "string", "contentEncoding": "base64"}
        }  # fmt: skip
        return {
            "type": "object",
            "required": ["id", "source", "specversion", "type"],
            "properties": {
                "id": {"type": "string", "minLength": 1},
                "source": _URI,
                "specversion": {"type": "string", "enum": ["1.0"]},
                "type": {"type": "string", "const": spec.type},
                "datacontenttype": {"type": "string", "const": _CONTENT_TYPES[encoding]},
                **data,
            },
        }

    def _headers(self, spec: MessageSpec) -> dict[str, Any]:
        """Returns the headers with values from the contract; the trait has the other headers."""
        if self._deployment.structured:
            return {}
        prefix = self._bindings.header_prefix
        said = {f"{prefix}type": spec.type}
        if spec.data_schema:
            said[f"{prefix}dataschema"] = spec.data_schema
        if self._bindings.content_type:
            said[self._bindings.content_type] = self.content_type(spec)
        properties: dict[str, Any] = {
            name: {"type": "string", "const": value} for name, value in said.items()
        }
        if spec.subject:
            properties[f"{prefix}subject"] = _TEXT
        return {"headers": {"type": "object", "properties": properties}}

    def _own_headers(self) -> dict[str, Any]:
        return dict.fromkeys((wire.CORRELATION_ID, wire.CAUSATION_ID, *wire.TRACE_CONTEXT), _TEXT)


def _trait(headers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "headers": {"type": "object", **headers},
        "correlationId": {"location": f"$message.header#/{wire.CORRELATION_ID}"},
    }


def _said(spec: MessageSpec, aspect: str) -> Any:
    """Returns a field of the contract as JSON.

    Of sensitive fields it returns only those of the message itself, because schemas mark those of
    every type.
    """
    if aspect == "sensitive":
        return [*spec.sensitive.get(spec.message_class.DESCRIPTOR.full_name, ())]
    value = getattr(spec, aspect)
    return [*value] if isinstance(value, tuple) else value


def _key_form(field: Any) -> dict[str, Any]:
    """Returns the schema of a key: text, bytes, or a decimal number."""
    if kind(field) in ("string", "bytes"):
        return {"type": "string"}
    return {"type": "string", "pattern": "^-?[0-9]+$"}
