"""Converts messages to entries of a stream, and entries to messages.

Protoflow's own fields begin with `_`; every other field is metadata. A metadata name that begins
with `_` is stored under another name.

    _id       the message id
    _key      the key, if there is one
    _due      the time when a delayed message is due, in ms since the epoch
    _to       the only group that receives it, for a replay
    _payload  the payload; missing in a tombstone
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from protoflow import wire
from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.transport.topic_reader import TopicRecord
from protoflow.transports.redis.foreign_records import decode_foreign

Record = TypeVar("Record", bound=TopicRecord)
_OWN = frozenset((b"_due", b"_to"))
_HOP = wire.PF_PREFIX.encode()
_MOST_METADATA = 1000


def encode(message: Message, limit: int, group: str = "") -> tuple[list[Any], int]:
    """Returns the fields of a message, and their size. Raises PublishRefusedError."""
    fields: list[Any] = [b"_id", message.id.encode()]
    try:
        if message.key is not None:
            fields += (b"_key", _bytes(message.key))
        if group:
            fields += (b"_to", group.encode())
        if message.payload is not None:
            fields += (b"_payload", _bytes(message.payload))
        if len(message.metadata) > _MOST_METADATA:
            raise ValueError(f"it has more than {_MOST_METADATA} metadata entries")
        for name, value in message.metadata.items():
            fields += ((f"_{name}" if name[:1] == "_" else name).encode(), value.encode())
        size = sum(map(len, fields))
        if size > limit:
            raise ValueError(f"it has {size} bytes, the limit is {limit}")
    except (TypeError, ValueError, AttributeError) as error:
        raise PublishRefusedError(f"message {message.id!r} cannot be stored: {error}") from error
    return fields, size


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError(f"{type(value).__name__} is not bytes")
    return bytes(value)


def decode(topic: str, place: str, fields: Sequence[bytes]) -> tuple[Message, str | None]:
    """Returns the message of an entry, and a problem if it could not be read completely."""
    metadata: dict[str, str] = {}
    message = Message(id="", topic=topic, payload=None, metadata=metadata)
    unreadable = None
    pairs = iter(fields)
    for name, value in zip(pairs, pairs, strict=False):
        if name[:1] == b"_":
            if name == b"_payload":
                message.payload = value
                continue
            if name == b"_key":
                message.key = value
                continue
            if name == b"_id":
                message.id = value.decode(errors="replace")
                continue
            if name in _OWN:
                continue
            if name[:2] == b"__":
                name = name[1:]
        try:
            metadata[name.decode()] = value.decode()
        except UnicodeDecodeError as error:
            if name.startswith(_HOP):  # the runtime ignores invalid hop state anyway
                continue
            unreadable = f"field {name.decode(errors='replace')!r:.100} is not UTF-8: {error}"
    if not message.id:
        message.id = place
    return message, unreadable


def group_of(fields: Sequence[bytes]) -> str | None:
    """Returns the only group that receives an entry; None if every group does."""
    to = dict(zip(fields[::2], fields[1::2], strict=False)).get(b"_to")
    return None if to is None else to.decode(errors="replace")


def as_record(kind: type[Record], topic: str, entry: Sequence[Any], *, own: bool = True) -> Record:
    """Returns an entry of a stream, of ours or of other programs, as a record."""
    position = entry[0].decode()
    message, _ = (decode if own else decode_foreign)(topic, f"{topic}:{position}", entry[1])
    return kind(message=message, position=position, time=time_of(position))


def time_of(position: str) -> float:
    """Returns the time at which the server received an entry, in seconds since the epoch."""
    return int(position.partition("-")[0]) / 1000
