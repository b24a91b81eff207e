"""Outboxes: messages kept in a database until a relay has published them.

https://microservices.io/patterns/data/transactional-outbox.html
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeVar, runtime_checkable

from protoflow.errors import TransportError
from protoflow.message import Message
from protoflow.transport import Transport

T = TypeVar("T")
_log = logging.getLogger("protoflow.outbox")


class OutboxStore(Protocol):
    """Keeps outputs."""

    async def store(self, messages: Sequence[Message], connection: Any) -> None:
        """Keeps messages, in the transaction of `connection` if one is given. The order of
        calls is the order of publishing."""
        ...


@dataclass(frozen=True, slots=True)
class Pending:
    """A message that waits in an outbox."""

    position: int
    message: Message


@runtime_checkable
class RelayedOutbox(OutboxStore, Protocol):
    """An outbox that the runtime's relay can empty."""

    async def pending(self, limit: int) -> Sequence[Pending]:
        """The oldest messages, in order."""
        ...

    async def delete(self, positions: Collection[int]) -> None:
        """These are published."""
        ...

    async def backlog(self) -> tuple[int, float]:
        """How many wait, and since when the oldest does, in seconds since the epoch."""
        ...


_SCHEMA = """CREATE TABLE IF NOT EXISTS protoflow_outbox (
    position INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, topic TEXT NOT NULL,
    payload BLOB, key BLOB, metadata TEXT NOT NULL, due REAL NOT NULL, stored REAL NOT NULL)"""
_INSERT = """INSERT INTO protoflow_outbox (id, topic, payload, key, metadata, due, stored)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
_SELECT = """SELECT position, id, topic, payload, key, metadata, due FROM protoflow_outbox
    ORDER BY position LIMIT ?"""


class SQLiteOutbox:
    """An outbox in a SQLite file; one relay may empty it at a time.

    A `sqlite3.Connection` given to `store` must be of a database with the same table
    (`SQLiteOutbox.SCHEMA`); whoever gave it commits, and calls nothing else meanwhile.
    """

    SCHEMA = _SCHEMA

    def __init__(self, path: Path | str) -> None:
        self._path = str(path)
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="protoflow-outbox")

    async def store(self, messages: Sequence[Message], connection: Any) -> None:
        """Keeps messages; durable when it returns, or when the given connection commits."""
        rows = [_row(message) for message in messages]
        if connection is not None:
            connection.executemany(_INSERT, rows)
            return

        def insert(own: sqlite3.Connection) -> None:
            with own:
                own.executemany(_INSERT, rows)

        await self._run(insert)

    async def pending(self, limit: int) -> Sequence[Pending]:
        """The oldest messages, in order."""
        rows = await self._run(lambda own: own.execute(_SELECT, (limit,)).fetchall())
        return [_pending(row) for row in rows]

    async def delete(self, positions: Collection[int]) -> None:
        """These are published."""
        ids = [(position,) for position in positions]

        def delete(own: sqlite3.Connection) -> None:
            with own:
                own.executemany("DELETE FROM protoflow_outbox WHERE position = ?", ids)

        await self._run(delete)

    async def backlog(self) -> tuple[int, float]:
        """How many wait, and since when the oldest does."""
        query = "SELECT COUNT(*), COALESCE(MIN(stored), 0) FROM protoflow_outbox"
        count, oldest = await self._run(lambda own: own.execute(query).fetchone())
        return int(count), float(oldest)

    async def close(self) -> None:
        """Closes the file."""
        if self._connection is not None:
            await self._run(lambda own: own.close())
            self._connection = None
        self._thread.shutdown()

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: work(self._open())
        )

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            own = sqlite3.connect(self._path, timeout=30.0, check_same_thread=False)
            own.execute("PRAGMA journal_mode=WAL")
            own.execute("PRAGMA synchronous=FULL")
            own.execute(_SCHEMA)
            self._connection = own
        return self._connection


def _row(message: Message) -> tuple[object, ...]:
    now = time.time()
    return (
        message.id, message.topic, message.payload, message.key,
        json.dumps(dict(message.metadata)), now + message.delay if message.delay else 0.0, now,
    )  # fmt: skip


def _pending(row: Sequence[Any]) -> Pending:
    position, id, topic, payload, key, metadata, due = row
    return Pending(
        position,
        Message(
            id=id,
            topic=topic,
            payload=payload,
            key=key,
            metadata=json.loads(metadata),
            delay=max(0.0, due - time.time()) if due else 0.0,
            deduplication_id=f"{id}:{topic}",
        ),
    )


class OutboxRelay:
    """Publishes what waits in an outbox, in order, and deletes what is confirmed.

    A crash in between publishes again, with the same ids. A message that the broker does not
    take holds back those after it, and is tried again, more and more slowly.

    Args:
        store: the outbox.
        transport: where the messages go.
        poll: seconds between two looks at an empty outbox.
        batch: how many are published at once.
    """

    def __init__(
        self, store: RelayedOutbox, transport: Transport, *, poll: float = 0.5, batch: int = 500
    ) -> None:
        self._store = store
        self._transport = transport
        self._poll = poll
        self._batch = batch
        self._task: asyncio.Task[None] | None = None
        #: Why the relay does not get on; None is that it does.
        self.problem: str | None = None
        self.waiting = 0
        self.oldest_at = 0.0

    async def relay(self) -> int:
        """Publishes one batch; how many were confirmed. Raises TransportError."""
        pending = await self._store.pending(self._batch)
        if not pending:
            return 0
        errors = await self._transport.submit([item.message for item in pending])
        done = [item.position for item, error in zip(pending, errors, strict=True) if not error]
        if done:
            await self._store.delete(done)
        for error in errors:
            if error is not None:
                raise error
        return len(done)

    async def refresh(self) -> None:
        """Counts what waits."""
        self.waiting, self.oldest_at = await self._store.backlog()

    async def __aenter__(self) -> OutboxRelay:
        self._task = asyncio.get_running_loop().create_task(self._serve())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(Exception):  # what is left goes out after the next start
            while await self.relay():
                pass

    async def _serve(self) -> None:
        pause = self._poll
        while True:
            try:
                sent = await self.relay()
            except Exception as error:
                text = str(error) if isinstance(error, TransportError) else type(error).__name__
                if self.problem is None:
                    _log.error("the outbox is not relayed: %s", text)
                self.problem = f"the outbox is not relayed: {text}"
                pause = min(30.0, pause * 2)
            else:
                self.problem, pause = None, self._poll
                if sent:
                    continue
            await asyncio.sleep(pause)
