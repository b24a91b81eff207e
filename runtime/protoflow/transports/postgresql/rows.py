"""Messages to columns and back."""

from __future__ import annotations

import json
import zlib
from collections.abc import Container, Sequence
from itertools import chain, count
from typing import Any

from protoflow.errors import PublishRefusedError
from protoflow.message import Delivery, Message
from protoflow.transports.postgresql.schema import BUCKETS

_keyless = count()
#: As `json.dumps`, which makes an encoder for each call.
_encode = json.JSONEncoder(separators=(",", ":")).encode
#: As `json.loads`, which checks the type of its argument and skips blanks.
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]  # typeshed lacks it


class Columns:
    """Messages as the arrays that the function `publish` takes."""

    def __init__(self) -> None:
        self.topics: list[str] = []
        self.buckets: list[int] = []
        self.ids: list[bytes] = []
        self.keys: list[bytes | None] = []
        self.heads: list[str] = []
        self.payloads: list[bytes | None] = []
        self.delays: list[float] = []
        self.size = 0
        self._keyless = next(_keyless) % BUCKETS

    def __len__(self) -> int:
        return len(self.topics)

    def add(self, message: Message, limit: int) -> None:
        """Adds a message. Raises PublishRefusedError if it can never be stored."""
        try:
            head = _encode([message.id, dict(message.metadata)])
            id = message.id.encode("utf-8", "surrogatepass")
            payload, key = message.payload, message.key
            size = len(head) + (len(payload) if payload else 0) + (len(key) if key else 0)
            if payload is not None and not isinstance(payload, bytes):
                raise TypeError(f"its payload is {type(payload).__name__}, not bytes")
            if size > limit:
                raise ValueError(f"it has {size} bytes, max_message_bytes is {limit}")
            if key is not None and not isinstance(key, bytes):
                raise TypeError(f"its key is {type(key).__name__}, not bytes")
            for value in chain(message.metadata, message.metadata.values()):
                if value.__class__ is not str:
                    raise TypeError(f"its metadata has a {type(value).__name__}")
            message.topic.encode()
            if "\0" in message.topic:
                raise ValueError("its topic has a NUL")
        except (TypeError, ValueError, AttributeError) as error:
            raise PublishRefusedError(
                f"message {message.id!r:.200} for {message.topic!r:.200} cannot be stored: {error}"
            ) from error
        self.topics.append(message.topic)
        self.buckets.append(zlib.crc32(key) % BUCKETS if key else self._keyless)
        self.ids.append(id)
        self.keys.append(key)
        self.heads.append(head)
        self.payloads.append(payload)
        self.delays.append(message.delay)
        self.size += size

    def without(self, topics: Container[str]) -> Columns:
        """Returns the messages of all other topics."""
        kept = Columns()
        for row in zip(*self._arrays(), strict=True):
            if row[0] not in topics:
                for array, value in zip(kept._arrays(), row, strict=True):
                    array.append(value)
        return kept

    def extend(self, other: Columns) -> None:
        """Adds the messages of another behind its own."""
        for array, added in zip(self._arrays(), other._arrays(), strict=True):
            array += added
        self.size += other.size

    def _arrays(self) -> tuple[list[Any], ...]:
        return (
            self.topics,
            self.buckets,
            self.ids,
            self.keys,
            self.heads,
            self.payloads,
            self.delays,
        )

    def values(self, topics: dict[str, int]) -> tuple[Any, ...]:
        """Returns the arguments of `publish`, with the ids of topics."""
        return ([topics[name] for name in self.topics], *self._arrays()[1:])


def read_message(
    topic: str, position: int, key: bytes | None, head: str, payload: bytes | None
) -> tuple[Message, str | None]:
    """Returns the message of a row, and why it could not be read."""
    try:
        (id, metadata), end = _scan(head, 0)
        if end != len(head) or id.__class__ is not str or metadata.__class__ is not dict:
            raise ValueError("the head is no pair of id and metadata")
        for value in metadata.values():
            if value.__class__ is not str:
                raise ValueError("the metadata has values that are no text")
    except (ValueError, TypeError, AttributeError, RecursionError, StopIteration) as error:
        damaged = Message(id=str(position), topic=topic, payload=payload, key=key)
        return damaged, f"the row is damaged: {error}"
    return Message(id=id, topic=topic, payload=payload, key=key, metadata=metadata), None


def read_delivery(
    topic: str,
    bucket: int,
    position: int,
    row: Sequence[Any],
    *,
    receipt: object,
    deliveries: int = 1,
) -> Delivery:
    """Returns the delivery of a row with key, head, payload and time at its end."""
    key, head, payload, at = row
    message, unreadable = read_message(topic, position, key, head, payload)
    return Delivery(
        message=message,
        deliveries=deliveries,
        shard=bucket,
        position=position,
        time=at,
        size=len(head) + (len(payload) if payload else 0) + (len(key) if key else 0),
        receipt=receipt,
        unreadable=unreadable,
    )
