"""The claim of a relay: only one relay at a time publishes from an outbox."""

from __future__ import annotations

import sqlite3
from pathlib import Path


class FileClaim:
    """A claim that ends when its process ends, for any reason.

    It is an SQLite lock on an empty file next to the database. It needs no clock, so a frozen
    relay keeps its claim and no other relay publishes the same messages.

    Args:
        path: the database; a database in memory needs no claim.
    """

    def __init__(self, path: str) -> None:
        # A file has one lock, whichever links lead to it.
        self._path = path if path == ":memory:" else f"{Path(path).resolve()}-relay"
        self._connection: sqlite3.Connection | None = None
        self._owner: object = None

    def acquire(self, owner: object) -> bool:
        """Tries to claim, and returns whether this owner has the claim."""
        if self._connection is not None:
            return self._owner is owner
        own = sqlite3.connect(
            self._path, timeout=0.0, isolation_level=None, check_same_thread=False
        )
        try:
            own.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            own.close()
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            return False
        self._connection, self._owner = own, owner
        return True

    def held_by(self, owner: object) -> bool:
        """Returns whether this owner has the claim now."""
        return self._owner is owner

    def release(self, owner: object) -> None:
        """Releases the claim."""
        if self._owner is owner:
            self.close()

    def close(self) -> None:
        """Releases the claim, regardless of its owner."""
        if self._connection is not None:
            self._connection.close()
            self._connection = self._owner = None
