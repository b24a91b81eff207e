"""Payloads: protobuf binary and protojson, chosen by the content type.

JSON is read tolerantly (unknown fields are ignored), so a producer that adds a field breaks
no consumer. The JSON module is imported at the first use, because most services never need it.
"""

from __future__ import annotations

from google.protobuf.message import Message as ProtoMessage

from protoflow import wire
from protoflow.codecs.cloudevents import is_json
from protoflow.contract.spec import Encoding, ProtoClass
from protoflow.errors import DecodeError

_BINARY_TYPES = frozenset(
    {wire.PROTOBUF, "application/x-protobuf", "application/vnd.google.protobuf",
     "application/octet-stream"}
)  # fmt: skip

CONTENT_TYPES = {Encoding.PROTOBUF: wire.PROTOBUF, Encoding.JSON: wire.JSON}


def is_binary(content_type: str) -> bool:
    """Whether `decode` reads payloads of a content type as binary protobuf."""
    return content_type.partition(";")[0].strip().lower() in _BINARY_TYPES


def is_supported(content_type: str) -> bool:
    """Whether `decode` reads payloads of a content type; an empty one names none."""
    return is_binary(content_type) or is_json(content_type)


def encode(message: ProtoMessage, encoding: Encoding) -> bytes:
    """Returns the payload of a message.

    Raises:
        ValueError: the message lacks a required field (proto2), or has no JSON form.
    """
    if encoding is Encoding.PROTOBUF:
        try:
            return message.SerializeToString()
        except Exception as error:  # protobuf raises EncodeError, which is not a ValueError
            raise ValueError(f"{message.DESCRIPTOR.full_name}: cannot be encoded") from error
    from google.protobuf import json_format

    return json_format.MessageToJson(message, indent=None).encode()


def decode(payload: bytes, content_type: str | None, message_class: ProtoClass) -> ProtoMessage:
    """Returns the message in a payload. Without a content type, the payload is binary or a JSON
    object.

    Raises:
        DecodeError: the payload is not a message of this class; the text does not contain the
            payload.
    """
    if content_type == wire.PROTOBUF:
        try:
            return message_class.FromString(payload)
        except Exception:  # usually DecodeError; any error means that the payload is invalid
            raise _no_message(payload, message_class) from None
    if not content_type:
        return _decode_untold(payload, message_class)
    if is_binary(content_type):
        return _decode_binary(payload, message_class)
    if is_json(content_type):
        return _decode_json(payload, message_class)
    raise DecodeError(
        f"content type {content_type[:80]!r} is not supported; send {wire.PROTOBUF} or {wire.JSON}"
    )


def _decode_untold(payload: bytes, message_class: ProtoClass) -> ProtoMessage:
    # Watermill and the Go runtime send no content type. In binary, `{` begins a group of field 15;
    # such a message would be taken for JSON only if it were a JSON object, too.
    if payload[:1] == b"{":
        try:
            return _decode_json(payload, message_class)
        except DecodeError:
            pass
    return _decode_binary(payload, message_class)


def _decode_binary(payload: bytes, message_class: ProtoClass) -> ProtoMessage:
    try:
        return message_class.FromString(payload)
    except Exception:
        raise _no_message(payload, message_class) from None


def _no_message(payload: bytes, message_class: ProtoClass) -> DecodeError:
    # The text of protobuf may contain the payload, so it is neither repeated nor chained.
    hint = ""
    if payload[:1] == b"\0":  # no protobuf message begins with field 0
        hint = "; they begin like a frame of a schema registry: set schema_registry"
    return DecodeError(f"{len(payload)} bytes are not a {message_class.DESCRIPTOR.full_name}{hint}")


def _decode_json(payload: bytes, message_class: ProtoClass) -> ProtoMessage:
    from google.protobuf import json_format

    try:
        return json_format.Parse(payload, message_class(), ignore_unknown_fields=True)
    # usually ParseError; unusual payloads cause TypeError, RecursionError and others
    except Exception:
        raise DecodeError(
            f"{len(payload)} bytes are not JSON of {message_class.DESCRIPTOR.full_name}"
        ) from None
