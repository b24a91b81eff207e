"""Transactions on a SQLite file, for handlers on the event loop and in threads."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final

from protoflow.database.interface import Dialect
from protoflow.database.sqlite import SQLiteConnection, SyncSQLiteConnection

#: Seconds that a transaction waits for another writer of the file.
_PATIENCE: Final = 5.0


class SQLiteFile:
    """A SQLite file. Only one writer is possible, so one transaction is open at a time.

    Args:
        path: the file.
    """

    dialect: Dialect = "sqlite"

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._writer = threading.Lock()
        # This is acquired before the lock: handlers on the loop wait in order without threads.
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="protoflow-inbox")

    async def begin(self) -> SQLiteTransaction:
        """See `Opener`."""
        await self._turn.acquire()
        begun = self._thread.submit(self._begin)
        try:
            connection = await asyncio.wrap_future(begun)
        except asyncio.CancelledError:
            # The thread cannot be stopped: it gives back the lock that it gets.
            begun.add_done_callback(self._give_back)
            self._turn.release()
            raise
        except BaseException:
            self._turn.release()
            raise
        return SQLiteTransaction(self, connection)

    def begin_sync(self) -> SyncSQLiteTransaction:
        """See `SyncOpener`."""
        return SyncSQLiteTransaction(self, self._begin())

    async def commit(self, connection: sqlite3.Connection) -> None:
        """Commits in the thread: the event loop must not wait for the disk."""
        # This is no future that a cancellation ends: COMMIT is short, and its result must be known.
        await _whole(self._thread.submit(connection.execute, "COMMIT"))

    def release(self, connection: sqlite3.Connection) -> None:
        """Rolls back unless committed, and lets the next transaction begin."""
        if connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
        self._writer.release()

    def pass_on(self) -> None:
        """Lets the next handler on the event loop begin."""
        self._turn.release()

    async def close(self) -> None:
        """See `Opener`."""
        self._thread.shutdown(wait=False)
        if self._connection is not None and self._writer.acquire(timeout=_PATIENCE):
            self._connection.close()
            self._connection = None
            self._writer.release()

    def _begin(self) -> sqlite3.Connection:
        if not self._writer.acquire(timeout=_PATIENCE):
            raise sqlite3.OperationalError("the inbox's transaction is held by another handler")
        try:
            if self._connection is None:
                self._connection = _open(self._path)
            self._connection.execute("BEGIN IMMEDIATE")
        except BaseException:
            self._writer.release()
            raise
        return self._connection

    def _give_back(self, begun: Future[sqlite3.Connection]) -> None:
        if not begun.cancelled() and begun.exception() is None:
            self.release(begun.result())


class SQLiteTransaction:
    """A transaction of a handler on the event loop."""

    def __init__(self, file: SQLiteFile, connection: sqlite3.Connection) -> None:
        self._file = file
        self.connection = connection
        self.database = SQLiteConnection(connection)

    @property
    def is_open(self) -> bool:
        """See `Transaction`."""
        return self.connection.in_transaction

    @property
    def is_lost(self) -> bool:
        """See `Transaction`."""
        return False

    async def prepare(self) -> None:
        """See `Transaction`."""

    async def commit(self) -> None:
        """See `Transaction`."""
        await self._file.commit(self.connection)

    async def close(self) -> None:
        """See `Transaction`."""
        self._file.release(self.connection)
        self._file.pass_on()


class SyncSQLiteTransaction:
    """A transaction of a handler in a thread."""

    def __init__(self, file: SQLiteFile, connection: sqlite3.Connection) -> None:
        self._file = file
        self.connection = connection
        self.database = SyncSQLiteConnection(connection)

    @property
    def is_open(self) -> bool:
        """See `SyncTransaction`."""
        return self.connection.in_transaction

    @property
    def is_lost(self) -> bool:
        """See `SyncTransaction`."""
        return False

    def prepare(self) -> None:
        """See `SyncTransaction`."""

    def commit(self) -> None:
        """See `SyncTransaction`."""
        self.connection.execute("COMMIT")

    def close(self) -> None:
        """See `SyncTransaction`."""
        self._file.release(self.connection)


def _open(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
    except BaseException:
        connection.close()
        raise
    return connection


async def _whole(future: Future[sqlite3.Cursor]) -> None:
    """Waits until a call in the thread has ended, even if cancelled: its result counts."""
    waiting = asyncio.wrap_future(future)
    while not waiting.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait((waiting,))
    waiting.result()
