"""CloudEvents 1.0: the attributes of a message, and the JSON format of structured mode.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from protoflow import wire
from protoflow.codecs.json_text import loads
from protoflow.error_codes import ENVELOPE
from protoflow.errors import DecodeError
from protoflow.message import Message

_REQUIRED = ("id", "source", "type", "specversion")


def is_structured(content_type: str) -> bool:
    """Whether a content type announces an envelope (compared without case, as specified)."""
    return content_type[:23].lower() == wire.CLOUDEVENTS


def wrap(message: Message) -> Message:
    """Returns the message in structured mode: one JSON document for attributes and data. Other
    metadata stays in the metadata."""
    envelope: dict[str, Any] = {"specversion": "1.0", "id": message.id}
    rest: dict[str, str] = {}
    for name, value in message.metadata.items():
        if name.startswith(wire.CE_PREFIX):
            envelope[name[3:]] = value
        elif name == wire.CONTENT_TYPE:
            envelope["datacontenttype"] = value
        else:
            rest[name] = value
    if message.payload is not None:
        if is_json(envelope.get("datacontenttype", "")):
            envelope["data"] = json.loads(message.payload)
        else:
            envelope["data_base64"] = base64.b64encode(message.payload).decode()
    rest[wire.CONTENT_TYPE] = wire.CLOUDEVENTS_JSON
    return replace(message, payload=json.dumps(envelope).encode(), metadata=rest)


def unwrap(message: Message) -> Message:
    """Returns the message in a structured one. Raises DecodeError, without the payload."""
    content_type = message.metadata.get(wire.CONTENT_TYPE, "")
    if not content_type.lower().startswith(wire.CLOUDEVENTS_JSON):
        raise DecodeError(
            f"content type {content_type[:80]!r} is not supported; send {wire.CLOUDEVENTS_JSON}",
            code=ENVELOPE,
        )
    if message.payload is None:
        return message  # a tombstone has no envelope either
    return _unwrapped(message, _envelope(message.payload or b""))


def without_content_type(message: Message) -> Message:
    """Returns a message without a content type as its sender probably meant it, or unchanged.

    The Go runtime sends its events as an envelope, but only the attributes in the headers show
    this. Some senders name the type of the data as an attribute although the binding has a header
    for it.
    """
    metadata = message.metadata
    if wire.CE_SPECVERSION in metadata and (message.payload or b"")[:1] == b"{":
        try:
            envelope = _envelope(message.payload or b"")
            if envelope["type"] == metadata.get(wire.CE_TYPE):
                return _unwrapped(message, envelope)
        except DecodeError:
            pass  # the payload is data, not an envelope
    if data_type := metadata.get(wire.CE_DATACONTENTTYPE):
        return replace(message, metadata={**metadata, wire.CONTENT_TYPE: data_type})
    return message


def _envelope(payload: bytes) -> dict[str, Any]:
    """Returns the members of an envelope that are not null. Raises DecodeError."""
    try:
        envelope = loads(payload)
    except (ValueError, RecursionError):  # its text may contain the payload
        raise DecodeError("the CloudEvents envelope is not JSON", code=ENVELOPE) from None
    if not isinstance(envelope, dict):
        raise DecodeError("the CloudEvents envelope is not a JSON object", code=ENVELOPE)
    found = {name: value for name, value in envelope.items() if value is not None or name == "data"}
    missing = [name for name in _REQUIRED if not (isinstance(found.get(name), str) and found[name])]
    if missing:
        raise DecodeError(f"the CloudEvents envelope lacks {', '.join(missing)}", code=ENVELOPE)
    if not str(found["specversion"]).startswith("1."):
        raise DecodeError("the CloudEvents envelope is not of version 1.0", code=ENVELOPE)
    if not isinstance(found.get("datacontenttype", ""), str):
        raise DecodeError("datacontenttype of the CloudEvents envelope is not text", code=ENVELOPE)
    if found.get("data") is not None and "data_base64" in found:
        raise DecodeError("the CloudEvents envelope has both data and data_base64", code=ENVELOPE)
    return found


def _unwrapped(message: Message, envelope: Mapping[str, Any]) -> Message:
    try:
        return _opened(message, envelope)
    except RecursionError:  # a document that could just be read may be too deep to be written
        raise DecodeError("the CloudEvents envelope nests too deeply", code=ENVELOPE) from None


def _opened(message: Message, envelope: Mapping[str, Any]) -> Message:
    metadata = dict(message.metadata)
    metadata.pop(wire.CONTENT_TYPE, None)
    for name, value in envelope.items():
        if name == "datacontenttype":
            metadata[wire.CONTENT_TYPE] = value
        elif name.isascii() and name.isalnum() and name not in ("id", "data"):
            metadata[wire.CE_PREFIX + name] = _text(value)
        # the Go runtime's hop state, which is not an attribute
        elif name.startswith(wire.PF_PREFIX):
            metadata.setdefault(name, _text(value))
    if wire.GO_CORRELATION_ID in metadata:
        metadata.setdefault(wire.CORRELATION_ID, metadata[wire.GO_CORRELATION_ID])
    metadata.setdefault(wire.CONTENT_TYPE, wire.JSON)
    return replace(message, id=envelope["id"], payload=_data(envelope), metadata=metadata)


def is_json(content_type: str) -> bool:
    """Whether a media type is JSON: `application/json`, `text/json` or `+json`."""
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type.endswith(("/json", "+json"))


def _data(envelope: Mapping[str, Any]) -> bytes | None:
    if "data_base64" in envelope:
        try:
            return base64.b64decode(envelope["data_base64"], validate=True)
        except (binascii.Error, TypeError, ValueError):
            text = "data_base64 of the CloudEvents envelope is not base64"
            raise DecodeError(text, code=ENVELOPE) from None
    if "data" not in envelope:
        return None
    data = envelope["data"]
    if isinstance(data, str) and not is_json(envelope.get("datacontenttype", wire.JSON)):
        return data.encode()
    return json.dumps(data).encode()


def _text(value: Any) -> str:
    # The string format of the CloudEvents type system: booleans are lower-case.
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value)
