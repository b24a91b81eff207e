"""An outbox in a SQLite file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from protoflow.database.sqlite import SyncSQLiteConnection
from protoflow.error_codes import OTHER_VERSION
from protoflow.errors import ConnectionFailedError
from protoflow.message import Message
from protoflow.outbox.claim import FileClaim
from protoflow.outbox.entries import pending_of
from protoflow.outbox.store import Parked, Pending
from protoflow.outbox.tables import SQLITE, insertion, store_in

T = TypeVar("T")

_COLUMNS = ("position", "id", "topic", "payload", "key", "metadata", "due", "stored", "parked")
_SELECT = """SELECT position, id, topic, payload, key, metadata, due, parked
    FROM protoflow_outbox o WHERE {} ORDER BY position LIMIT ?1"""
_PENDING = _SELECT.format("parked IS NULL")
_PENDING_BUT = _SELECT.format("""parked IS NULL AND NOT EXISTS (
    SELECT 1 FROM protoflow_outbox b WHERE b.position IN (SELECT value FROM json_each(?2))
    AND (b.position = o.position OR (b.topic = o.topic AND b.key = o.key AND b.key <> x'')))""")
_PARKED = _SELECT.format("parked IS NOT NULL AND position > ?2")


class SQLiteOutbox:
    """An outbox in a SQLite file. One relay publishes from it, and others wait in standby.

    A connection given to `store` must belong to a database with the same table
    (`protoflow.outbox.schema`). The caller commits, and makes no other calls meanwhile.
    """

    SCHEMA = SQLITE

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._connection: sqlite3.Connection | None = None
        self._claim = FileClaim(self._path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="protoflow-outbox")

    async def store(self, messages: Sequence[Message], connection: Any) -> None:
        """Stores messages; durable when it returns, or when the given connection commits.

        Raises:
            PublishRefusedError: a message cannot be stored; then none is stored.
        """
        if connection is not None:
            await store_in(connection, messages)
            return
        statement, rows = insertion("sqlite", messages)

        def insert(own: sqlite3.Connection) -> None:
            with own:
                SyncSQLiteConnection(own).execute_many(statement, rows)

        await self._run(insert)

    async def claim(self, relay: object) -> bool:
        """Claims the outbox for a relay; False if another relay of any process has the claim."""
        return await self._run(lambda _: self._claim.acquire(relay))

    def holds(self, relay: object) -> bool:
        """Whether this relay may still publish the messages that it has read."""
        return self._claim.held_by(relay)

    async def release(self, relay: object) -> None:
        """Releases the claim."""
        await self._run(lambda _: self._claim.release(relay))

    async def pending(
        self, limit: int, behind: Collection[int] = (), *, again: bool = True
    ) -> Sequence[Pending]:
        """Returns the oldest messages that are not parked, in order. Messages at the positions
        `behind`, and all with the same topic and key as one of these, are left out."""

        def read(own: sqlite3.Connection) -> list[Any]:
            if not behind:
                return own.execute(_PENDING, (limit,)).fetchall()
            return own.execute(_PENDING_BUT, (limit, json.dumps(list(behind)))).fetchall()

        return [pending_of(*row[:-1]) for row in await self._run(read)]

    async def delete(self, positions: Collection[int]) -> None:
        """Deletes messages that are published or dropped."""
        await self._write("DELETE FROM protoflow_outbox WHERE position = ?", positions)

    async def park(self, position: int, reason: str) -> None:
        """Parks a message that cannot be published: it is kept, but no longer pending."""
        await self._write(
            "UPDATE protoflow_outbox SET parked = ?2 WHERE position = ?1", (position,), reason
        )

    async def parked(self, limit: int = 100, *, after: int = 0) -> Sequence[Parked]:
        """Returns the oldest messages after a position that could not be published."""
        rows = await self._run(lambda own: own.execute(_PARKED, (limit, after)).fetchall())
        return [Parked(row[0], pending_of(*row[:-1]).message, row[-1]) for row in rows]

    async def unpark(self, positions: Collection[int]) -> None:
        """Makes parked messages pending again; later messages of their keys may already be
        published."""
        await self._write("UPDATE protoflow_outbox SET parked = NULL WHERE position = ?", positions)

    async def backlog(self) -> tuple[int, float]:
        """Returns the number of pending messages, and the time of the oldest."""
        query = (
            "SELECT COUNT(*), COALESCE(MIN(stored), 0) FROM protoflow_outbox WHERE parked IS NULL"
        )
        count, oldest = await self._run(lambda own: own.execute(query).fetchone())
        return int(count), float(oldest)

    async def close(self) -> None:
        """Closes the file."""
        if self._connection is not None:
            await self._run(lambda _: self._claim.close())
            await self._run(lambda own: own.close())
            self._connection = None
        self._thread.shutdown()

    async def _write(self, statement: str, positions: Collection[int], *values: object) -> None:
        rows = [(position, *values) for position in positions]

        def write(own: sqlite3.Connection) -> None:
            with own:
                own.executemany(statement, rows)

        await self._run(write)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: work(self._open())
        )

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            own = sqlite3.connect(self._path, timeout=30.0, check_same_thread=False)
            try:
                own.execute("PRAGMA journal_mode=WAL")
                own.execute("PRAGMA synchronous=FULL")
                own.execute(SQLITE)
                found = own.execute("SELECT name FROM pragma_table_info('protoflow_outbox')")
                if tuple(name for (name,) in found) != _COLUMNS:
                    raise ConnectionFailedError(
                        f"the table protoflow_outbox in {self._path} has another version: let the "
                        "Protoflow of that version publish its messages, drop the table, and "
                        "start again",
                        code=OTHER_VERSION,
                    )
            except BaseException:
                own.close()
                raise
            self._connection = own
        return self._connection
