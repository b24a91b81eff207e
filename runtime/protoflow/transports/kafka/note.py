"""The note in the metadata of an offset commit: what Kafka itself does not remember.

Kafka counts neither deliveries nor what is finished beyond the committed offset. The note
says how often this position was started without an orderly end, which message is suspected
of killing the process, and which later messages are finished already.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

_VERSION: Final = "pf1"
#: Kafka refuses more than 4096 bytes by default; ours stay below 1 KiB.
MAX_LENGTH: Final = 1024
_BITMAP_BYTES: Final = 672  # 896 characters of base64
#: How far beyond the committed offset a note remembers what is finished.
REACH: Final = _BITMAP_BYTES * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a commit remembers beside its offset.

    Attributes:
        writer: who wrote it, to tell one's own note from another process's.
        starts: unclean starts since the watermark moved; the writer's own while it runs.
        careful_until: below this offset messages are handed out one at a time; 0 is none.
        suspect: the offset that was handed out alone last; -1 is none.
        count: how often it was.
        finished: offsets beyond the committed one that are done.
    """

    writer: str = ""
    starts: int = 0
    careful_until: int = 0
    suspect: int = -1
    count: int = 0
    finished: Collection[int] = field(default=frozenset())

    def encode(self, offset: int) -> str:
        """The text to commit with `offset`."""
        parts = (self.writer, self.starts, self.careful_until, self.suspect, self.count)
        bitmap = _pack(offset, self.finished)
        return ";".join((_VERSION, *map(str, parts), base64.b64encode(bitmap).decode()))

    @classmethod
    def decode(cls, text: str | None, offset: int) -> Note:
        """What was committed with `offset`; foreign text is an empty note."""
        parts = (text or "").split(";")
        if len(parts) != 7 or parts[0] != _VERSION:
            return cls()
        try:
            starts, careful_until, suspect, count = (int(part) for part in parts[2:6])
            bitmap = base64.b64decode(parts[6], validate=True)
        except (ValueError, binascii.Error):
            return cls()
        return cls(
            writer=parts[1],
            starts=max(starts, 0),
            careful_until=careful_until,
            suspect=suspect,
            count=count,
            finished=_unpack(offset, bitmap),
        )


def _pack(offset: int, finished: Collection[int]) -> bytes:
    """One bit an offset, from the one after `offset` on; what is too far off is left out."""
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
