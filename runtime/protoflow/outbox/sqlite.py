"""An outbox in a SQLite file."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from protoflow.errors import ConnectionFailedError, PublishRefusedError
from protoflow.message import Message
from protoflow.outbox.claim import FileClaim
from protoflow.outbox.store import Parked, Pending

T = TypeVar("T")

_COLUMNS = ("position", "id", "topic", "payload", "key", "metadata", "due", "stored", "parked")
_SCHEMA = """CREATE TABLE IF NOT EXISTS protoflow_outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, topic TEXT NOT NULL,
    payload BLOB, key BLOB, metadata TEXT NOT NULL, due REAL NOT NULL, stored REAL NOT NULL,
    parked TEXT)"""
_INSERT = """INSERT INTO protoflow_outbox (id, topic, payload, key, metadata, due, stored)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
_SELECT = """SELECT position, id, topic, payload, key, metadata, due, parked
    FROM protoflow_outbox o WHERE {} ORDER BY position LIMIT ?1"""
_PENDING = _SELECT.format("parked IS NULL")
_PENDING_BUT = _SELECT.format("""parked IS NULL AND NOT EXISTS (
    SELECT 1 FROM protoflow_outbox b WHERE b.position IN (SELECT value FROM json_each(?2))
    AND (b.position = o.position OR (b.topic = o.topic AND b.key = o.key AND b.key <> x'')))""")
_PARKED = _SELECT.format("parked IS NOT NULL")


class SQLiteOutbox:
    """An outbox in a SQLite file. One relay publishes from it, others stand by.

    A `sqlite3.Connection` given to `store` must have the same table (`SQLiteOutbox.SCHEMA`). The
    caller commits, and makes no other call meanwhile.
    """

    SCHEMA = _SCHEMA

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._connection: sqlite3.Connection | None = None
        self._claim = FileClaim(self._path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="protoflow-outbox")

    async def store(self, messages: Sequence[Message], connection: Any) -> None:
        """Stores messages; durable when it returns, or when the given connection commits.

        Raises:
            PublishRefusedError: one cannot be stored; then none is stored.
        """
        rows = [_row(message) for message in messages]
        if connection is not None:
            connection.executemany(_INSERT, rows)
            return

        def insert(own: sqlite3.Connection) -> None:
            with own:
                own.executemany(_INSERT, rows)

        await self._run(insert)

    async def claim(self, relay: object) -> bool:
        """Claims the outbox for a relay; False if another relay of any process has the claim."""
        return await self._run(lambda _: self._claim.acquire(relay))

    async def release(self, relay: object) -> None:
        """Releases the claim."""
        await self._run(lambda _: self._claim.release(relay))

    async def pending(self, limit: int, behind: Collection[int] = ()) -> Sequence[Pending]:
        """The oldest messages that are not parked, in order; without those at the positions
        `behind`, and without what has topic and key of one of these."""

        def read(own: sqlite3.Connection) -> list[Any]:
            if not behind:
                return own.execute(_PENDING, (limit,)).fetchall()
            return own.execute(_PENDING_BUT, (limit, json.dumps(list(behind)))).fetchall()

        return [_pending(row) for row in await self._run(read)]

    async def delete(self, positions: Collection[int]) -> None:
        """Deletes messages that are published or dropped."""
        await self._write("DELETE FROM protoflow_outbox WHERE position = ?", positions)

    async def park(self, position: int, reason: str) -> None:
        """Parks a message that cannot be published: it is kept, but no longer pending."""
        await self._write(
            "UPDATE protoflow_outbox SET parked = ?2 WHERE position = ?1", (position,), reason
        )

    async def parked(self, limit: int = 100) -> Sequence[Parked]:
        """The oldest messages that could not be published."""
        rows = await self._run(lambda own: own.execute(_PARKED, (limit,)).fetchall())
        return [Parked(row[0], _pending(row).message, row[-1]) for row in rows]

    async def unpark(self, positions: Collection[int]) -> None:
        """Makes parked messages pending again; later messages of their keys may be published
        already."""
        await self._write("UPDATE protoflow_outbox SET parked = NULL WHERE position = ?", positions)

    async def backlog(self) -> tuple[int, float]:
        """The number of pending messages, and the time of the oldest."""
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
                own.execute(_SCHEMA)
                found = own.execute("SELECT name FROM pragma_table_info('protoflow_outbox')")
                if tuple(name for (name,) in found) != _COLUMNS:
                    raise ConnectionFailedError(
                        f"the table protoflow_outbox in {self._path} is of another version of "
                        "protoflow: let that version publish its messages, drop it, and start "
                        "again"
                    )
            except BaseException:
                own.close()
                raise
            self._connection = own
        return self._connection


def _row(message: Message) -> tuple[object, ...]:
    now = time.time()
    try:
        metadata = dict(message.metadata)
        "".join([*metadata, *metadata.values()])  # they are strings
        for value in (message.payload, message.key):
            if value is not None:
                memoryview(value)
        for text in (message.id, message.topic):
            text.encode()  # SQLite takes no lone surrogates
        due = now + message.delay if message.delay else 0.0
    except (TypeError, ValueError, AttributeError) as error:
        raise PublishRefusedError(
            f"message {message.id!r} for {message.topic!r} cannot be stored: {error}"
        ) from error
    return (
        message.id, message.topic, message.payload, message.key, json.dumps(metadata), due, now,
    )  # fmt: skip


def _pending(row: Sequence[Any]) -> Pending:
    position, id, topic, payload, key, metadata, due, _ = row
    flaw = None
    try:
        decoded = json.loads(metadata)
        "".join([*decoded, *decoded.values()])
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        decoded, flaw = {}, f"its metadata cannot be read ({type(error).__name__})"
    message = Message(
        id=id,
        topic=topic,
        payload=payload,
        key=key,
        metadata=decoded,
        delay=max(0.0, due - time.time()) if due else 0.0,
        deduplication_id=f"{id}:{topic}",
    )
    return Pending(position, message, flaw)
