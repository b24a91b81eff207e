"""The file of a database: its creation, and the check that it is still the same."""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile

from protoflow.error_codes import FILE_PLACE
from protoflow.errors import ConnectionFailedError, TransportError

#: Only the owner may read and write the messages.
_PRIVATE = 0o600
_log = logging.getLogger("protoflow.transports.sqlite")


def make(path: str) -> None:
    """Creates the file for this user only, if there is none. Raises ConnectionFailedError if the
    path is not a regular file: a symbolic link may lead anywhere."""
    directory, name = os.path.split(path)
    if not os.path.isdir(directory):
        raise ConnectionFailedError(
            f"the directory {directory} does not exist; create it", code=FILE_PLACE
        )
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        _make_private(directory, path)
        found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        raise ConnectionFailedError(
            f"{name} is a symbolic link; name its target in the URL", code=FILE_PLACE
        )
    if not stat.S_ISREG(found.st_mode):
        raise ConnectionFailedError(
            f"{name} is not a regular file; name one in the URL", code=FILE_PLACE
        )
    if found.st_mode & stat.S_IWOTH:
        _log.warning(
            "every user of this machine may write to the queue; remove this right with chmod o-w",
            extra={"file": path},
        )


def _make_private(directory: str, path: str) -> None:
    """Creates an empty file and then gives it its name; several processes may do so at once.
    SQLite's locks on a file end when the process closes any descriptor of it
    (https://www.sqlite.org/howtocorrupt.html), so it is closed before it gets its name."""
    try:
        descriptor, unnamed = tempfile.mkstemp(dir=directory, prefix=".protoflow-")
    except OSError as error:
        raise ConnectionFailedError(
            f"cannot make a file in {directory}: {error}", code=FILE_PLACE
        ) from error
    os.close(descriptor)  # mkstemp creates it for this user only
    try:
        with contextlib.suppress(FileExistsError):
            os.link(unnamed, path)
            return
    except OSError:  # the file system has no links
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, _PRIVATE))
    finally:
        os.unlink(unnamed)


class Location:
    """The identity of the files at the path when the database was opened."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._log = f"{path}-wal"
        self._file = _identity(path)
        self._log_file = _identity(self._log)

    def connected_again(self) -> None:
        """SQLite removes the log with the last connection, and creates another with the next."""
        self._log_file = _identity(self._log)

    def check(self) -> None:
        """Raises TransportError if there are other files now: data written to the open files would
        be confirmed and then lost."""
        if _identity(self._log) != self._log_file:
            raise self._replaced()
        self.check_file()

    def check_file(self) -> None:
        """The same for the database file only: without a connection there is no log."""
        if _identity(self._path) != self._file:
            raise self._replaced()

    def _replaced(self) -> TransportError:
        return TransportError(
            f"{os.path.basename(self._path)} was replaced or deleted while it was open; put the "
            "file back with its -wal and -shm files, or restart this process to use the "
            "present file",
            code=FILE_PLACE,
        )


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
