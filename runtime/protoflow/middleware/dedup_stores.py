"""Stores for `deduplicate`: memory, or a SQLite file that several processes share."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeAlias

#: The group, the handler, and the message id or field.
Key: TypeAlias = tuple[str, str, str]

#: Old entries are removed after this many new ones.
_SWEEP_EVERY = 1000


class DeduplicationStore(Protocol):
    """Stores the ids of successfully handled messages."""

    async def contains(self, key: Key, /) -> bool:
        """Whether the message was handled."""
        ...

    async def add(self, key: Key, /) -> None:
        """Records that the message was handled."""
        ...


class MemoryDeduplication:
    """Keeps entries in this process: the last `size` entries, for `ttl` seconds."""

    def __init__(self, *, size: int = 100_000, ttl: float = 3600.0) -> None:
        self._size = size
        self._ttl = ttl
        self._entries: OrderedDict[Key, float] = OrderedDict()

    async def contains(self, key: Key, /) -> bool:
        """Whether the message was handled."""
        expires = self._entries.get(key)
        return expires is not None and expires > time.monotonic()

    async def add(self, key: Key, /) -> None:
        """Records that the message was handled."""
        self._entries[key] = time.monotonic() + self._ttl
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def __len__(self) -> int:
        return len(self._entries)


class SQLiteDeduplication:
    """Keeps entries in a file for `ttl` seconds; an asynchronous context manager."""

    def __init__(self, path: Path | str, *, ttl: float = 7 * 86400.0) -> None:
        self._path = str(path)
        self._ttl = ttl
        self._added = 0
        self._connection: sqlite3.Connection | None = None
        # A single thread: SQLite has one writer, and the loop must not wait for the disk.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="protoflow-dedup")

    async def contains(self, key: Key, /) -> bool:
        """Whether the message was handled."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._contains, key)

    async def add(self, key: Key, /) -> None:
        """Records that the message was handled."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._add, key)

    async def close(self) -> None:
        """Closes the file."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def __aenter__(self) -> SQLiteDeduplication:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    def _contains(self, key: Key) -> bool:
        row = self._open().execute(
            "SELECT 1 FROM protoflow_seen"
            " WHERE consumer = ? AND handler = ? AND id = ? AND expires > ?",
            (*key, time.time()),
        )
        return row.fetchone() is not None

    def _add(self, key: Key) -> None:
        now = time.time()
        with self._open() as transaction:
            transaction.execute(
                "INSERT INTO protoflow_seen VALUES (?, ?, ?, ?)"
                " ON CONFLICT DO UPDATE SET expires = excluded.expires",
                (*key, now + self._ttl),
            )
            if self._added % _SWEEP_EVERY == 0:
                transaction.execute("DELETE FROM protoflow_seen WHERE expires <= ?", (now,))
            self._added += 1

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(self._path, timeout=30.0, check_same_thread=False)
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS protoflow_seen (consumer TEXT, handler TEXT, id TEXT,"
                " expires REAL, PRIMARY KEY (consumer, handler, id)) WITHOUT ROWID"
            )
            connection.execute(
                "CREATE INDEX IF NOT EXISTS protoflow_seen_expires ON protoflow_seen (expires)"
            )
            self._connection = connection
        return self._connection

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
