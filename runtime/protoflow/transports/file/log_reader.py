"""Reading the log of a topic: segments, each a file named after the position where it begins.

A position is a number of bytes from the beginning of the topic. Readers take no lock; a frame that
cannot be read is looked at again under the lock of the appenders.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
from bisect import bisect_left, bisect_right
from typing import Final

from protoflow.errors import TransportError
from protoflow.transports.file import frames, records
from protoflow.transports.file.disk import FileLock, open_file
from protoflow.transports.file.records import Record

LOCK: Final = "append.lock"
_SEGMENT: Final = re.compile(r"(\d{20})\.log", re.ASCII)
_CHUNK: Final = 64 * 1024
#: The bytes of damage that go into a dead letter.
_SHOWN: Final = 64 * 1024
_log = logging.getLogger("protoflow.transports.file")


class LostPositionError(TransportError):
    """The position is before the first message that is kept, or behind the last."""


def segment(path: str, base: int) -> str:
    """Returns the path of the segment that begins at a position."""
    return f"{path}/{base:020d}.log"


def bases(path: str) -> list[int]:
    """Returns where the segments of a topic begin; other files are ignored."""
    found = map(_SEGMENT.fullmatch, os.listdir(path))
    return sorted(int(each[1]) for each in found if each)


class LogReader:
    """Reads one topic from any position; used by one thread.

    Args:
        path: the folder of the topic.
        salt: that of the topic.
    """

    def __init__(self, path: str, salt: int) -> None:
        self.path = path
        self._salt = salt
        self._base = 0
        self._descriptor: int | None = None
        self._lock = FileLock(f"{path}/{LOCK}", shared=True)
        self._reported: set[int] = set()

    def first(self) -> int:
        """Returns the first position that is kept."""
        return next(iter(bases(self.path)), 0)

    def end(self) -> int:
        """Returns the position of the next message."""
        found = bases(self.path)
        return found[-1] + os.stat(segment(self.path, found[-1])).st_size if found else 0

    def has(self, position: int) -> bool:
        """Whether there may be a record at a position."""
        try:
            return self._open(position) is not None or position < max(bases(self.path), default=0)
        except LostPositionError:
            return True  # `read` says it

    def read(self, position: int, most: int = 1024) -> list[Record]:
        """Returns the next records, at most `most`; none at the end. Raises LostPositionError."""
        descriptor = self._open(position)
        if descriptor is None:
            return self._missing(position)
        data = os.pread(descriptor, _CHUNK, position - self._base)
        size = frames.length_at(data, 0)
        if size is not None and size > len(data):
            data = os.pread(descriptor, size, position - self._base)
        found: list[Record] = []
        for offset, end, body in frames.frames(self._salt, position, data):
            found.append(records.decode(position + offset, position + end, body))
            if len(found) == most:
                break
        return found or self._damaged(position, descriptor)

    def previous(self, position: int) -> Record | None:
        """Returns the record that ends at a position; None: there is none, or it is damaged."""
        for base in reversed([each for each in bases(self.path) if each < position]):
            path = segment(self.path, base)
            with contextlib.suppress(FileNotFoundError):
                return last_record(path, base, self._salt, position - base)
        return None

    def sequence_before(self, position: int) -> int:
        """Returns the number of the last record before a position; 0 if it is not known."""
        before = self.previous(position)
        if before is not None:
            return before.sequence
        following = self.read(position, 1) if position >= self.first() else []
        return max(0, following[0].sequence - 1) if following else 0

    def count(self, position: int, sequence: int) -> int:
        """Returns how many records follow a position; `sequence` is the number before it."""
        last = self.previous(self.end())
        if last is not None:
            return max(0, last.sequence - sequence)
        count = 0
        while found := self.read(position):  # the tail is torn
            count, position = count + len(found), found[-1].end
        return count

    def at_time(self, time: float) -> int:
        """Returns the position of the first record that was published at a time or later."""
        found = bases(self.path)
        after = bisect_left(found, time, key=self.time_from)
        position = found[after - 1] if after else self.first()
        while read := self.read(position):
            for record in read:
                if record.damage is None and record.time >= time:
                    return record.position
            position = read[-1].end
        return position

    def time_from(self, position: int) -> float:
        """Returns the time of the first readable record from a position on, or infinity."""
        while read := self.read(position):
            for record in read:
                if record.damage is None:
                    return record.time
            position = read[-1].end
        return math.inf

    def sync(self) -> None:
        """Writes to the disk what was read."""
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Closes the files."""
        self._lock.close()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, position: int) -> int | None:
        """Returns the file with a position; None: nothing is there yet."""
        if self._descriptor is not None:
            end = self._base + os.fstat(self._descriptor).st_size
            if self._base <= position < end:
                return self._descriptor
            if position == end and not os.path.exists(segment(self.path, end)):
                return None
        found = bases(self.path)
        after = bisect_right(found, position)
        if not after:
            if found or position:
                raise self._lost(position)
            return None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._base = found[after - 1]
        self._descriptor = open_file(segment(self.path, self._base), os.O_RDONLY)
        within = position - self._base < os.fstat(self._descriptor).st_size
        return self._descriptor if within else None

    def _missing(self, position: int) -> list[Record]:
        """The bytes between the end of a segment and the beginning of the next."""
        found = bases(self.path)
        if found and position < found[0]:
            raise self._lost(position)
        if found and position < found[-1]:
            following = found[bisect_right(found, position)]
            return [self._record(position, following, b"", "bytes are missing")]
        return []

    def _damaged(self, position: int, descriptor: int) -> list[Record]:
        """Returns the damage at a position; none if this is the tail, which an appender heals."""
        with self._lock if os.path.exists(f"{self.path}/{LOCK}") else contextlib.nullcontext():
            size = os.fstat(descriptor).st_size - (position - self._base)
            data = os.pread(descriptor, size, position - self._base)
            following = [base for base in bases(self.path) if base > position]
        if frames.body_at(self._salt, position, data, 0) is not None:
            return self.read(position)  # it was being written
        found = frames.next_frame(self._salt, position, data, 0)
        if found is None and not following:
            return []
        end = following[0] if found is None else position + found
        return [self._record(position, end, data[: end - position], "the checksum is wrong")]

    def _lost(self, position: int) -> LostPositionError:
        return LostPositionError(
            f"position {position} is not kept any more; the first is {self.first()}"
        )

    def _record(self, position: int, end: int, data: bytes, why: str) -> Record:
        damage = f"{segment(self.path, self._base)}: {why} from byte {position - self._base} on"
        if position not in self._reported:
            self._reported.add(position)
            _log.error(
                "a part of a topic is damaged; restore the file from a copy",
                extra={"file": segment(self.path, self._base), "position": position, "end": end},
            )
        return Record(position, end, payload=data[:_SHOWN], damage=damage)


def last_record(path: str, base: int, salt: int, size: int) -> Record | None:
    """Returns the record that ends with the first `size` bytes of a file, if it is whole."""
    descriptor = open_file(path, os.O_RDONLY)
    try:
        if not frames.EXTRA <= size <= os.fstat(descriptor).st_size:
            return None
        length = frames.last_length(os.pread(descriptor, frames.TAIL, size - frames.TAIL))
        start = size - length
        if start < 0:
            return None
        data = os.pread(descriptor, length, start)
        body = frames.body_at(salt, base + start, data, 0)
    finally:
        os.close(descriptor)
    return None if body is None else records.decode(base + start, base + size, body)
