"""Files and folders of this user only, locks between processes, and writing as a whole."""

from __future__ import annotations

import contextlib
import fcntl
import os
import uuid
from types import TracebackType
from typing import Final

_FOLDER: Final = 0o700
_FILE: Final = 0o600
#: The bytes that `check_space` writes.
_PROBE: Final = 4096


def make_folder(path: str) -> None:
    """Creates a folder and those above it, unless they exist."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        make_folder(parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, _FOLDER)
        sync_folder(parent)


def open_file(path: str, flags: int) -> int:
    """Opens a file, never through a symbolic link: it may lead anywhere."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, _FILE)


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all bytes; `os.write` may write fewer."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def read_file(path: str) -> bytes:
    """Returns the bytes of a file."""
    descriptor = open_file(path, os.O_RDONLY)
    try:
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    finally:
        os.close(descriptor)


def replace_file(path: str, data: bytes, *, alone: bool = True) -> None:
    """Writes a file that appears as a whole; `alone` says that a lock keeps others from it."""
    draft = f"{path}.new" if alone else f"{path}.{uuid.uuid4().hex}"
    descriptor = open_file(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(draft, path)
    sync_folder(os.path.dirname(path))


def check_space(folder: str) -> None:
    """Writes a file and removes it. Raises OSError if that is not possible."""
    path = f"{folder}/.{uuid.uuid4().hex}"
    descriptor = open_file(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    try:
        write_all(descriptor, bytes(_PROBE))
    finally:
        os.close(descriptor)
        os.unlink(path)


def sync_folder(path: str) -> None:
    """Writes to the disk which files a folder has."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class FileLock:
    """A lock between processes, and between locks of one process. It ends with the process.

    Args:
        path: the file, which is created if it may be.
        shared: whether several may have it that only read.

    Attributes:
        renewed: whether the file was deleted, and another is used since.
    """

    def __init__(self, path: str, *, shared: bool = False) -> None:
        self._path = path
        self._shared = shared
        self._descriptor: int | None = None
        self.renewed = False

    def __enter__(self) -> None:
        while True:
            if self._descriptor is None:
                flags = os.O_RDONLY if self._shared else os.O_RDWR | os.O_CREAT
                self._descriptor = open_file(self._path, flags)
            fcntl.flock(self._descriptor, fcntl.LOCK_SH if self._shared else fcntl.LOCK_EX)
            if self._is_named(self._descriptor):
                return
            self.close()
            self.renewed = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._descriptor is not None  # noqa: S101  it was entered
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _is_named(self, descriptor: int) -> bool:
        """Whether others that open the path get the same file; it may have been deleted."""
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(descriptor), os.stat(self._path))
        return False

    def close(self) -> None:
        """Closes the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
