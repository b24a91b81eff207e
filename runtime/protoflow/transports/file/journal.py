"""The journal of a group: what its members did, appended under a lock, replaced when it is long."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

from protoflow.error_codes import DAMAGED, TOPOLOGY_MISSING
from protoflow.errors import TopologyError, TransportError
from protoflow.transports.file import frames
from protoflow.transports.file.disk import FileLock, open_file, read_file, replace_file, write_all
from protoflow.transports.file.group_state import GroupState

LOCK: Final = "lock"
JOURNAL: Final = "journal"
#: The length in bytes from which a journal is replaced, if the state is much shorter.
_LONG: Final = 1024 * 1024
_MUCH: Final = 4
_log = logging.getLogger("protoflow.transports.file")


class Journal:
    """One group's journal, and the state that it describes; used by one thread.

    Args:
        path: the folder of the group.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.state = GroupState()
        self._file = f"{path}/{JOURNAL}"
        self._lock = FileLock(f"{path}/{LOCK}")
        self._descriptor: int | None = None
        self._inode = self._size = self._whole = 0
        self._dirty = False

    @classmethod
    def create(cls, path: str, position: int, sequence: int) -> None:
        """Creates a journal that begins at a position, unless there is one."""
        with closing(FileLock(f"{path}/{LOCK}")) as lock, lock:
            if not os.path.exists(f"{path}/{JOURNAL}"):
                state = GroupState()
                state.cursor, state.sequence = position, sequence
                replace_file(f"{path}/{JOURNAL}", _packed(0, [state.snapshot()]))

    @contextmanager
    def alone(self) -> Iterator[GroupState]:
        """Gives the current state, which no other process changes meanwhile. Changes are applied to
        it at once and written at the end; if that fails, they are forgotten."""
        try:
            if not os.path.exists(self._file):
                raise self._gone()
            with self._lock:
                self._refresh()
                yield self.state
                self._write()
        except BaseException:
            self._forget()
            raise

    def read(self) -> GroupState:
        """Returns the state as it is in the file, without a lock, for those that only look."""
        try:
            data = read_file(self._file)
        except FileNotFoundError:
            raise self._gone() from None
        state = GroupState()
        for _, _, body in frames.frames(0, 0, data):
            state.replay(json.loads(body))
        return state

    def changed(self) -> bool:
        """Whether another process has written since the last look."""
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(self._file)
            return (found.st_ino, found.st_size) != (self._inode, self._size)
        return True

    def sync(self) -> None:
        """Writes the journal to the disk."""
        if self._dirty and self._descriptor is not None:
            os.fdatasync(self._descriptor)
            self._dirty = False

    def close(self) -> None:
        """Closes the files."""
        self._lock.close()
        self._forget()

    def _forget(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        self._inode = self._size = self._whole = 0
        self.state = GroupState()

    def _refresh(self) -> None:
        """Reads what other processes have written."""
        try:
            found = os.stat(self._file)
        except FileNotFoundError:
            raise self._gone() from None
        if self._descriptor is None or found.st_ino != self._inode:
            self._forget()
            self._descriptor = open_file(self._file, os.O_RDWR | os.O_APPEND)
            self._inode = found.st_ino
        if found.st_size == self._size:
            return
        data = os.pread(self._descriptor, found.st_size - self._size, self._size)
        whole = 0
        for _, end, body in frames.frames(0, self._size, data):
            self.state.replay(json.loads(body))
            whole = end
        if whole < len(data):
            self._cut(data, whole)
        self._size += whole
        self._whole = self._whole or self._size

    def _cut(self, data: bytes, whole: int) -> None:
        """Cuts off what a killed member has written in part; under the lock, nobody writes."""
        damaged = self._size + whole
        if frames.next_frame(0, self._size, data, whole) is not None:
            raise TransportError(
                f"{self._file} is damaged at byte {damaged}; restore it from a copy, or stop the"
                " members and remove it: the group then begins where `start` says",
                code=DAMAGED,
            )
        assert self._descriptor is not None  # noqa: S101  it was opened before
        os.ftruncate(self._descriptor, damaged)
        _log.warning(
            "the last record of a journal was incomplete and was cut off",
            extra={"file": self._file, "bytes": len(data) - whole},
        )

    def _write(self) -> None:
        changes = self.state.taken_changes()
        if not changes:
            return
        assert self._descriptor is not None  # noqa: S101  it was opened before
        data = _packed(self._size, changes)
        try:
            write_all(self._descriptor, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)
        self._dirty = True
        if self._size > _LONG and self._size > _MUCH * self._whole:
            self._replace()

    def _replace(self) -> None:
        """Writes a shorter file. If that fails, the long one stays: what was asked for is done."""
        assert self._descriptor is not None  # noqa: S101  it was opened before
        self._whole = self._size
        with contextlib.suppress(OSError):
            replace_file(self._file, _packed(0, [self.state.snapshot()]))
            opened = open_file(self._file, os.O_RDWR | os.O_APPEND)
            os.close(self._descriptor)
            self._descriptor, found = opened, os.fstat(opened)
            self._inode, self._size, self._whole = found.st_ino, found.st_size, found.st_size

    def _gone(self) -> TopologyError:
        return TopologyError(
            f"group {self.path} has no journal; start once with topology mode create",
            code=TOPOLOGY_MISSING,
        )


def _packed(position: int, changes: list[Any]) -> bytes:
    body = json.dumps(changes, separators=(",", ":")).encode()
    return frames.pack(0, position, body)
