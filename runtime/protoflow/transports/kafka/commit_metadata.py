"""The metadata of an offset commit: state that Kafka itself does not store.

Kafka counts no deliveries, and does not store which messages beyond the committed offset are
finished. The metadata contain the number of starts at this position without a normal end, the
messages that were started alone and never ended, the later messages that are finished, and the id
of the topic.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

_VERSION: Final = "pf2"
#: The beginning of the metadata in every version.
_FAMILY: Final = "pf"
_FIELDS: Final = 8
#: Kafka refuses more than 4096 bytes by default; this metadata stays below 1 KiB.
MAX_LENGTH: Final = 1024
_BITMAP_BYTES: Final = 640  # 856 characters of base64
#: The number of offsets after the committed one whose state the metadata can store.
REACH: Final = _BITMAP_BYTES * 8
#: The highest number of stored start marks.
_MARKS: Final = 8


class UnknownMetadataError(ValueError):
    """Another version of the runtime wrote the metadata."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitMetadata:
    """The data that a commit stores with its offset.

    Attributes:
        writer: the process that wrote it.
        starts: starts without a normal end since the watermark moved. While the writer runs, its
            own start is included.
        isolated_until: messages below this offset are suspects, which must run alone; 0: none.
        marks: for each offset that ran alone and did not end, the number of these runs.
        initial_partitions: the number of partitions when the group began with the topic; 0:
            unknown.
        topic: the id of the topic; empty if the broker has no ids.
        finished: finished offsets beyond the committed one.
    """

    writer: str = ""
    starts: int = 0
    isolated_until: int = 0
    marks: Mapping[int, int] = field(default_factory=dict)
    initial_partitions: int = 0
    topic: str = ""
    finished: Collection[int] = field(default=frozenset())

    def encode(self, offset: int) -> str:
        """Returns the text to commit with `offset`."""
        marks = sorted(item for item in self.marks.items() if item[0] >= offset)[:_MARKS]
        parts = (
            _VERSION,
            self.writer,
            self.starts,
            max(self.isolated_until - offset, 0),
            ",".join(f"{place - offset}:{count}" for place, count in marks),
            self.initial_partitions,
            self.topic,
            base64.b64encode(_pack(offset, self.finished)).decode(),
        )
        return ";".join(map(str, parts))

    @classmethod
    def decode(cls, text: str | None, offset: int) -> CommitMetadata:
        """Returns the metadata committed with `offset`; foreign text is read as empty metadata.

        Raises:
            UnknownMetadataError: another version of the runtime wrote it.
        """
        parts = (text or "").split(";")
        if parts[0] != _VERSION or len(parts) != _FIELDS:
            if parts[0].startswith(_FAMILY) and parts[0][2:].isdecimal() and parts[0] != _VERSION:
                raise UnknownMetadataError(parts[0])
            return cls()
        try:
            starts, isolated, initial_partitions = int(parts[2]), int(parts[3]), int(parts[5])
            marks = _marks(parts[4], offset)
            bitmap = base64.b64decode(parts[7], validate=True)
        except (ValueError, binascii.Error):
            return cls()
        return cls(
            writer=parts[1],
            starts=max(starts, 0),
            isolated_until=offset + isolated if isolated > 0 else 0,
            marks=marks,
            initial_partitions=max(initial_partitions, 0),
            topic=parts[6],
            finished=_unpack(offset, bitmap),
        )


def _marks(text: str, offset: int) -> dict[int, int]:
    """Returns the marks by offset. Raises ValueError."""
    pairs = [pair.split(":") for pair in text.split(",")] if text else []
    return {offset + int(place): int(count) for place, count in pairs}


def _pack(offset: int, finished: Collection[int]) -> bytes:
    """Returns a bit for each offset after `offset`; offsets beyond the bitmap are left out."""
    bitmap = bytearray()
    for done in finished:
        byte, bit = divmod(done - offset - 1, 8)
        if 0 <= byte < _BITMAP_BYTES:
            if byte >= len(bitmap):
                bitmap.extend(bytes(byte + 1 - len(bitmap)))
            bitmap[byte] |= 1 << bit
    return bytes(bitmap)


def _unpack(offset: int, bitmap: bytes) -> frozenset[int]:
    return frozenset(
        offset + 1 + 8 * index + bit
        for index, byte in enumerate(bitmap)
        if byte
        for bit in range(8)
        if byte >> bit & 1
    )
