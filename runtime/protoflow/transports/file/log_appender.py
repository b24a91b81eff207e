"""Appending to the log of a topic, by one process at a time."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from typing import NamedTuple

from protoflow.transports.file import frames, records
from protoflow.transports.file.disk import (
    FileLock,
    open_file,
    replace_file,
    sync_folder,
    write_all,
)
from protoflow.transports.file.log_reader import LOCK, bases, last_record, segment

_log = logging.getLogger("protoflow.transports.file")


class Appended(NamedTuple):
    """How many records were appended, why not all, and whether a segment was begun."""

    written: int
    error: OSError | None
    begun: bool


class LogAppender:
    """Appends to one topic; used by one thread.

    Args:
        path: the folder of the topic.
        salt: that of the topic.
        segment_bytes: the size from which a new segment begins.
        durable: whether a full segment is written to the disk before the next begins.
    """

    def __init__(self, path: str, salt: int, segment_bytes: int, *, durable: bool) -> None:
        self.path = path
        self.lock = FileLock(f"{path}/{LOCK}")
        self._salt = salt
        self._segment_bytes = segment_bytes
        self._durable = durable
        self._descriptor: int | None = None
        self._base = self._size = self._sequence = 0
        self._time = 0.0

    def append(self, parts: Sequence[bytes], now: float) -> Appended:
        """Appends records; if the disk is full, only the first of them. Raises OSError."""
        with self.lock:
            descriptor = self._current()
            begun = self._size >= self._segment_bytes
            if begun:
                descriptor = self._begin(self._base + self._size)
            time = max(now, self._time)
            end, packed, ends = self._base + self._size, [], []
            for sequence, part in enumerate(parts, self._sequence + 1):
                packed.append(frames.pack(self._salt, end, records.body(sequence, time, part)))
                end += len(packed[-1])
                ends.append(end - self._base)
            error = None
            try:
                write_all(descriptor, b"".join(packed))
            except OSError as failure:
                error = failure
                ends = self._whole(descriptor, ends)
            if ends:
                self._size, self._time = ends[-1], time
                self._sequence += len(ends)
        return Appended(len(ends), error, begun)

    def sync(self) -> None:
        """Writes what was appended to the disk."""
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def heal(self) -> None:
        """Cuts off what a killed process has written in part."""
        with self.lock:
            self._current()

    def close(self) -> None:
        """Closes the files."""
        self.lock.close()
        self._close_segment()

    def _whole(self, descriptor: int, ends: Sequence[int]) -> list[int]:
        """Keeps the records that were written whole, for a reader may have seen them: their places
        must not get other messages. Returns their ends."""
        size = os.fstat(descriptor).st_size
        kept = [end for end in ends if end <= size]
        with contextlib.suppress(OSError):  # otherwise the next appender heals the tail
            os.ftruncate(descriptor, kept[-1] if kept else self._size)
        return kept

    def _close_segment(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _current(self) -> int:
        """Returns the last segment, after other processes may have appended."""
        if self.lock.renewed:  # the salt may be another
            raise FileNotFoundError(f"{self.path} was deleted and made again")
        if self._descriptor is not None:
            if self._is_last(self._descriptor):
                return self._descriptor
            self._close_segment()
        found = bases(self.path)
        if not found:
            self._sequence, self._time = 0, 0.0
            return self._begin(0)
        self._base = found[-1]
        self._descriptor = open_file(segment(self.path, self._base), os.O_RDWR | os.O_APPEND)
        self._size = os.fstat(self._descriptor).st_size
        if not self._size and self._durable:  # who began it may have been killed before that
            sync_folder(self.path)
        self._read_last(found)
        return self._descriptor

    def _is_last(self, descriptor: int) -> bool:
        found = os.fstat(descriptor)
        with contextlib.suppress(FileNotFoundError):
            named = os.stat(segment(self.path, self._base))
            following = segment(self.path, self._base + self._size)
            same = found.st_size == self._size and found.st_ino == named.st_ino
            return same and not os.path.exists(following)
        return False

    def _begin(self, base: int) -> int:
        if self._descriptor is not None and self._durable:
            os.fdatasync(self._descriptor)
        self._close_segment()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
        self._descriptor = open_file(segment(self.path, base), flags)
        self._base, self._size = base, 0
        sync_folder(self.path)
        return self._descriptor

    def _read_last(self, found: Sequence[int]) -> None:
        """Sets sequence and time to those of the last record."""
        last = last_record(segment(self.path, self._base), self._base, self._salt, self._size)
        if last is None and self._size:
            self._cut_tail()
            last = last_record(segment(self.path, self._base), self._base, self._salt, self._size)
        for base in reversed(found[:-1]):
            if last is not None:
                break
            path = segment(self.path, base)
            last = last_record(path, base, self._salt, os.stat(path).st_size)
        self._sequence, self._time = (0, 0.0) if last is None else (last.sequence, last.time)

    def _cut_tail(self) -> None:
        """Keeps the segment up to its last whole record. The rest goes to a file beside it."""
        assert self._descriptor is not None  # noqa: S101  it was opened before
        data = os.pread(self._descriptor, self._size, 0)
        kept, offset = 0, 0
        while True:
            for _, end, _ in frames.frames(self._salt, self._base, data, offset):
                kept = end
            following = frames.next_frame(self._salt, self._base, data, kept)
            if following is None:
                break
            offset = following
        place = self._base + kept
        rest = f"{self.path}/{place:020d}.torn"
        replace_file(rest, data[kept:])
        os.ftruncate(self._descriptor, kept)
        os.fsync(self._descriptor)
        _log.warning(
            "the last record of a topic was incomplete; it was cut off and kept in another file",
            extra={
                "file": segment(self.path, self._base),
                "bytes": self._size - kept,
                "kept": rest,
            },
        )
        self._size = kept
