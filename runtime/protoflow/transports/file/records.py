"""Messages as bodies of frames, and back.

sequence     8 bytes  1, 2, 3... in the topic
time         8 bytes  microseconds since the epoch, never less than before
head length  4 bytes
head         JSON: id, key (hex), metadata, and what else is set: tombstone, due (microseconds
             since the epoch), group (the only one that gets it: a replay), removed (positions
             of dead letters) or removed_before (a position)
payload      the rest
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.transport.topic_reader import TopicRecord

_NUMBERS: Final = struct.Struct("<QQI")
_SECOND: Final = 1_000_000
#: Positions and times are below it, as those of the numbers before the head.
_LARGEST: Final = 1 << 64
#: What a head can raise that this module has not written.
_FOREIGN: Final = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    OverflowError,
    RecursionError,
)
Kind = TypeVar("Kind", bound=TopicRecord)


@dataclass(slots=True)
class Record:
    """A record of a topic.

    Attributes:
        position: where its frame begins in the topic.
        end: where its frame ends.
        sequence: its number; 0 if it is damaged.
        time: when it was published, in seconds since the epoch.
        head: see above.
        payload: the bytes of the payload.
        damage: why it cannot be read; its bytes are the payload.
    """

    position: int
    end: int
    sequence: int = 0
    time: float = 0.0
    head: Mapping[str, Any] | None = None  # Any: JSON
    payload: bytes = b""
    damage: str | None = None

    @property
    def is_marker(self) -> bool:
        """Whether it removes dead letters, and is no message."""
        head = self.head or {}
        return "removed" in head or "removed_before" in head

    @property
    def group(self) -> str | None:
        """The only group that gets it; None: every group does."""
        return None if self.head is None else self.head.get("group")

    @property
    def lane(self) -> int:
        """The checksum of its key; 0: it has none."""
        key = None if self.head is None else self.head.get("key")
        return (zlib.crc32(key.encode()) or 1) if key else 0

    @property
    def due(self) -> float:
        """When it may be delivered, in seconds since the epoch; 0.0: at once."""
        return 0.0 if self.head is None else self.head.get("due", 0) / _SECOND

    @property
    def size(self) -> int:
        """How many bytes it has in the file."""
        return self.end - self.position

    def message(self, topic: str) -> Message:
        """Returns the message; if it is damaged, one with the damaged bytes as payload."""
        head = self.head
        if head is None:
            return Message(id=f"{topic}:{self.position}", topic=topic, payload=self.payload)
        key = head.get("key")
        return Message(
            id=head["id"],
            topic=topic,
            payload=None if "tombstone" in head else self.payload,
            key=None if key is None else bytes.fromhex(key),
            metadata=head["metadata"],
        )

    def as_topic_record(self, kind: type[Kind], topic: str) -> Kind:
        """Returns it as a record of a kind."""
        return kind(message=self.message(topic), position=str(self.position), time=self.time)


def encode(message: Message, limit: int, now: float, group: str = "") -> bytes:
    """Returns head and payload of a message. Raises PublishRefusedError."""
    try:
        "".join([*message.metadata, *message.metadata.values()])  # JSON would take numbers, too
        head: dict[str, Any] = {"id": message.id, "metadata": dict(message.metadata)}
        if message.key is not None:
            head["key"] = message.key.hex()
        if message.payload is None:
            head["tombstone"] = True
        if message.delay > 0:
            head["due"] = round((now + message.delay) * _SECOND)
        if group:
            head["group"] = group
        payload = b"" if message.payload is None else message.payload
        if not isinstance(payload, bytes | bytearray | memoryview):
            raise TypeError(f"its payload is {type(payload).__name__}, not bytes")
        encoded = part(head, payload)
        if len(encoded) > limit:
            raise ValueError(f"it has {len(encoded)} bytes, {limit} are allowed")
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise PublishRefusedError(f"message {message.id!r} cannot be stored: {error}") from error
    return encoded


def part(head: Mapping[str, Any], payload: bytes | bytearray | memoryview = b"") -> bytes:
    """Returns the part of a body that does not depend on its place."""
    text = json.dumps(head, ensure_ascii=False, separators=(",", ":")).encode()
    return b"".join((len(text).to_bytes(4, "little"), text, payload))


def body(sequence: int, time: float, part: bytes) -> bytes:
    """Returns the body of a frame."""
    return sequence.to_bytes(8, "little") + round(time * _SECOND).to_bytes(8, "little") + part


def decode(position: int, end: int, body: bytes) -> Record:
    """Returns the record of a body; another program may have written it."""
    if len(body) < _NUMBERS.size:
        return Record(position, end, payload=body, damage="the record is too short")
    sequence, time, length = _NUMBERS.unpack_from(body)
    start = _NUMBERS.size
    try:
        head = json.loads(body[start : start + length])
        _check(head)
    except _FOREIGN as error:
        damage = f"the head of the record cannot be read: {type(error).__name__}: {error}"
        return Record(position, end, sequence, time / _SECOND, payload=body, damage=damage)
    return Record(position, end, sequence, time / _SECOND, head, body[start + length :])


def _check(head: dict[str, Any]) -> None:
    """Raises an error if a head has other values than this module writes."""
    if "removed" in head or "removed_before" in head:
        _check_integers([head.get("removed_before", 0), *head.get("removed", ())])
        return
    metadata = head["metadata"]
    "".join([head["id"], head.get("group", ""), *metadata, *metadata.values()]).encode()
    bytes.fromhex(head.get("key", ""))
    _check_integers([head.get("due", 0)])


def _check_integers(values: Sequence[object]) -> None:
    for value in values:
        if type(value) is not int or not 0 <= value < _LARGEST:
            raise ValueError(f"{value!r:.40} is no position or time")
