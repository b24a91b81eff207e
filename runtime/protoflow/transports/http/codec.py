"""Converts messages to requests and back: CloudEvents in three modes, and plain webhooks.

https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md

Metadata that is neither attribute nor trace context is in the header `Message-Metadata`, as JSON
(Watermill's convention), because names and values of headers cannot have every character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, quote_from_bytes, unquote, unquote_to_bytes

from protoflow import wire
from protoflow.codecs.bindings import HTTP
from protoflow.codecs.cloudevents import is_structured, unwrap, wrap
from protoflow.codecs.json_text import loads
from protoflow.error_codes import ENVELOPE
from protoflow.errors import DecodeError, PublishRefusedError
from protoflow.message import Message
from protoflow.transports.http import signatures
from protoflow.transports.http.options import Mode
from protoflow.transports.http.requests import Refusal

BATCH: Final = "application/cloudevents-batch+json"
METADATA: Final = "message-metadata"
UUID: Final = "message-uuid"
#: The largest header of metadata that is sent; receivers and proxies have limits, too.
_LARGEST_METADATA: Final = 32 * 1024
_REQUIRED: Final = ("ce-id", "ce-source", "ce-type", "ce-specversion")
#: CloudEvents' extension for keys; keys that are not text are plain metadata.
_KEY: Final = "ce_partitionkey"
_PLAIN_KEY: Final = "pf_key"
_TOMBSTONE: Final = "pf_tombstone"
_ATTRIBUTE: Final = re.compile(r"ce_[a-z0-9]+")
_DIRECT: Final = frozenset((wire.CONTENT_TYPE, *wire.TRACE_CONTEXT))
#: What a header holds without a change.
_PLAIN: Final = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
#: What stays as it is in an id: all that a header can hold except the percent sign.
_SAFE: Final = "!\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~"
_BYTES: Final = (bytes, bytearray, memoryview)


@dataclass(frozen=True, slots=True)
class EncodedMessage:
    """A message as a request, without its signature."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The id for the receiver, as a header holds it."""
        return self.headers[signatures.ID]


def encode(message: Message, mode: Mode, limit: int) -> EncodedMessage:
    """Returns the request for a message. Raises PublishRefusedError if it cannot be sent."""
    try:
        if message.payload is not None and not isinstance(message.payload, _BYTES):
            raise TypeError(f"the payload is {type(message.payload).__name__}, not bytes")
        encoded = _encoded(message, mode)
        if len(encoded.body) > limit:
            size = len(encoded.body)
            raise ValueError(f"the body has {size} bytes, max_message_bytes is {limit}")
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        text = f"message {message.id!r:.100} to {message.topic} cannot be sent: {error}"
        raise PublishRefusedError(text) from error
    return encoded


def _encoded(message: Message, mode: Mode) -> EncodedMessage:
    metadata = dict(message.metadata)
    "".join([*metadata, *metadata.values()])  # JSON would take numbers, too
    structured = is_structured(metadata.get(wire.CONTENT_TYPE, ""))
    event = bool(metadata.get(wire.CE_TYPE) and metadata.get(wire.CE_SOURCE))
    if message.key:
        _add_key(metadata, message.key, as_attribute=event and not structured)
    if message.payload is None:
        metadata[_TOMBSTONE] = "1"
    if event and mode is Mode.STRUCTURED and not structured and message.payload is not None:
        message = wrap(replace(message, metadata=metadata))
        metadata, structured = dict(message.metadata), True
    attributes: dict[str, str] = {}
    direct: dict[str, str] = {}
    rest: dict[str, str] = {}
    for name, value in metadata.items():
        if event and not structured and _ATTRIBUTE.fullmatch(name):
            attributes[name] = value
        elif name in _DIRECT and _PLAIN.fullmatch(value):
            direct[name] = value
        else:
            rest[name] = value
    uuid = rest.pop(wire.WATERMILL_ID, None)
    headers = {
        **(dict(HTTP.headers(message.id, attributes)) if attributes else {}),
        **direct,
        **({UUID: quote(uuid)} if uuid is not None else {}),
        signatures.ID: quote(message.id, safe=_SAFE),
    }
    if rest:
        headers[METADATA] = json.dumps(rest)
        if len(headers[METADATA]) > _LARGEST_METADATA:
            raise ValueError(f"its metadata has more than {_LARGEST_METADATA} bytes")
    return EncodedMessage(headers, bytes(message.payload or b""))


def _add_key(metadata: dict[str, str], key: bytes, *, as_attribute: bool) -> None:
    if as_attribute and _KEY not in metadata:
        try:
            metadata[_KEY] = key.decode()
        except UnicodeDecodeError:
            pass
        else:
            return
    metadata[_PLAIN_KEY] = quote_from_bytes(key)


def decode(
    topic: str, headers: Mapping[str, str], body: bytes, kept: Iterable[str] = (), *,
    signed: bool = False,
) -> list[Message]:  # fmt: skip
    """Returns the messages of a request. The id of a message that names none is empty.

    Args:
        topic: the topic of the messages.
        headers: the headers by lower-case name.
        body: the body.
        kept: further headers that become metadata.
        signed: whether the request had to be signed. Its id is then the one that was signed, so
            that a repetition with another id is noticed.

    Raises:
        Refusal: the request is not what its content type and its headers say.
    """
    content_type = headers.get(wire.CONTENT_TYPE, "").lower()
    id, metadata = HTTP.read(_pairs(headers, kept))
    try:
        if content_type.partition(";")[0].strip() == BATCH:
            return [*_batch(topic, metadata, body)]
        message = Message(id=id or "", topic=topic, payload=body, metadata=metadata)
        if is_structured(content_type):
            if not content_type.startswith(wire.CLOUDEVENTS_JSON):
                text = f"this format is not supported; send {wire.CLOUDEVENTS_JSON} or {BATCH}"
                raise Refusal(415, text)
            return [_enveloped(message)] if body else [_finished(message)]
        if any(name in headers for name in _REQUIRED):
            _check_attributes(headers)
        if signed or not message.id:
            message.id = unquote(headers.get(signatures.ID, ""))
        return [_finished(message)]
    except DecodeError as error:
        raise Refusal(400, str(error)) from None
    except UnicodeEncodeError:
        raise Refusal(400, "an id, a key or metadata is not UTF-8") from None


def _pairs(headers: Mapping[str, str], kept: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the headers that belong to the message. Others, such as `Authorization`, do not."""
    wanted = {*_DIRECT, *(name.lower() for name in kept)}
    pairs = [
        (name, value)
        for name, value in headers.items()
        if name in wanted or name.startswith(HTTP.prefix)
    ]
    if uuid := headers.get(UUID):
        pairs.append((wire.WATERMILL_ID, unquote(uuid)))
    if text := headers.get(METADATA):
        try:
            found = loads(text.encode())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not all(isinstance(one, str) for one in found.values()):
            raise Refusal(400, "Message-Metadata is not a JSON object of text")
        pairs += found.items()
    return pairs


def _check_attributes(headers: Mapping[str, str]) -> None:
    missing = [name for name in _REQUIRED if not headers.get(name)]
    if missing:
        raise Refusal(400, f"the CloudEvents headers lack {', '.join(missing)}")
    if not headers["ce-specversion"].startswith("1."):
        raise Refusal(400, "the CloudEvents headers are not of version 1.0")


def _batch(topic: str, metadata: Mapping[str, str], body: bytes) -> Iterable[Message]:
    """Yields the messages of a batch. Raises DecodeError: a batch is taken whole or not at all."""
    try:
        items: Any = loads(body)
    except (ValueError, RecursionError):  # its text may contain a payload
        raise DecodeError("the CloudEvents batch is not JSON", code=ENVELOPE) from None
    if not isinstance(items, list):
        raise DecodeError("the CloudEvents batch is not a JSON array", code=ENVELOPE)
    shared = {**metadata, wire.CONTENT_TYPE: wire.CLOUDEVENTS_JSON}
    for index, item in enumerate(items):
        try:
            envelope = json.dumps(item).encode()
            yield _enveloped(Message(id="", topic=topic, payload=envelope, metadata=shared))
        except DecodeError as error:
            raise DecodeError(f"item {index} of the batch: {error}", code=ENVELOPE) from None
        except RecursionError:
            raise DecodeError(
                f"item {index} of the batch nests too deeply", code=ENVELOPE
            ) from None


def _enveloped(message: Message) -> Message:
    """Returns a message that keeps its envelope, with the id and the key in it. Raises DecodeError
    if the envelope cannot be read."""
    read = _finished(unwrap(message))
    kept = _finished(message)
    return replace(kept, id=read.id, key=kept.key or read.key)


def _finished(message: Message) -> Message:
    """Returns a received message with its key. Raises UnicodeEncodeError, if it has text that
    cannot be encoded."""
    metadata = dict(message.metadata)
    if metadata.pop(_TOMBSTONE, None) is not None and not message.payload:
        message.payload = None
    if (plain := metadata.pop(_PLAIN_KEY, None)) is not None:
        message.key = unquote_to_bytes(plain) or None
    elif (key := metadata.pop(_KEY, None)) is not None:
        message.key = key.encode() or None
    "".join([message.id, *metadata, *metadata.values()]).encode()
    message.metadata = metadata
    return message
