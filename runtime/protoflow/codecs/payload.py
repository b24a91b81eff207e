"""Payloads: protobuf binary and protojson, chosen by the content type.

JSON is read tolerantly (unknown fields are ignored), so a producer that adds a field breaks
no consumer. Its import is put off to the first use: most services never need it.
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


def encode(message: ProtoMessage, encoding: Encoding) -> bytes:
    """The payload of a message.

    Raises:
        ValueError: the message lacks a required field (proto2), or has no JSON form.
    """
    if encoding is Encoding.PROTOBUF:
        try:
            return message.SerializeToString()
        except Exception as error:  # protobuf raises EncodeError, which is no ValueError
            raise ValueError(f"{message.DESCRIPTOR.full_name}: cannot be encoded") from error
    from google.protobuf import json_format

    return json_format.MessageToJson(message, indent=None).encode()


def decode(payload: bytes, content_type: str | None, message_class: ProtoClass) -> ProtoMessage:
    """The message of a payload. Without a content type it is binary, or a JSON object.

    Raises:
        DecodeError: it is none of that class; the text does not show the payload.
    """
    if content_type == wire.PROTOBUF:
        try:
            return message_class.FromString(payload)
        except Exception:  # DecodeError as a rule; whatever it is, it is the payload's fault
            raise _no_message(payload, message_class) from None
    if not content_type:
        return _decode_untold(payload, message_class)
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in _BINARY_TYPES:
        return _decode_binary(payload, message_class)
    if is_json(media_type):
        return _decode_json(payload, message_class)
    raise DecodeError(
        f"content type {content_type[:80]!r} is not read; send {wire.PROTOBUF} or {wire.JSON}"
    )


def _decode_untold(payload: bytes, message_class: ProtoClass) -> ProtoMessage:
    # Watermill and the Go runtime send no content type. `{` begins a group of field 15,
    # so no message that is not JSON is taken for it: it would have to be an object, too.
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
    # What protobuf says may quote the payload, so it is neither repeated nor chained.
    return DecodeError(f"{len(payload)} bytes are no {message_class.DESCRIPTOR.full_name}")


def _decode_json(payload: bytes, message_class: ProtoClass) -> ProtoMessage:
    from google.protobuf import json_format

    try:
        return json_format.Parse(payload, message_class(), ignore_unknown_fields=True)
    except Exception:  # ParseError as a rule, and TypeError, RecursionError... for odd ones
        raise DecodeError(
            f"{len(payload)} bytes are no JSON of {message_class.DESCRIPTOR.full_name}"
        ) from None
