"""An outbox in a PostgreSQL database."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

from protoflow.config.url import TransportURL
from protoflow.message import Message
from protoflow.outbox.entries import pending_of
from protoflow.outbox.postgresql_cursor import COLUMNS, Cursor
from protoflow.outbox.postgresql_database import OutboxDatabase
from protoflow.outbox.postgresql_lease import BucketLease
from protoflow.outbox.store import Parked, Pending
from protoflow.outbox.tables import POSTGRESQL, POSTGRESQL_LOCK, insertion, store_in

# These are separate queries, because an OR would compare each row with each position.
_BEHIND = f"""WITH lanes AS MATERIALIZED (
    SELECT topic, key FROM protoflow_outbox WHERE position = ANY ($3::bigint[]) AND key <> '')
SELECT {COLUMNS} FROM protoflow_outbox o
WHERE parked IS NULL AND bucket = ANY ($1::int[]) AND position <> ALL ($3::bigint[])
    AND NOT EXISTS (SELECT 1 FROM lanes WHERE lanes.topic = o.topic AND lanes.key = o.key)
ORDER BY position LIMIT $2"""  # noqa: S608  # made of constants
_PARKED = f"""SELECT {COLUMNS}, parked FROM protoflow_outbox
WHERE parked IS NOT NULL AND position > $2 ORDER BY position LIMIT $1"""  # noqa: S608
_DELETE = "DELETE FROM protoflow_outbox WHERE position = ANY ($1::bigint[])"
_PARK = "UPDATE protoflow_outbox SET parked = $2 WHERE position = $1"
# The rows get new positions, because the cursors of relays have passed the old ones.
_UNPARK = """WITH own AS MATERIALIZED (SELECT pg_current_xact_id() AS xid), unparked AS (
    DELETE FROM protoflow_outbox WHERE position = ANY ($1::bigint[]) AND parked IS NOT NULL
    RETURNING *)
INSERT INTO protoflow_outbox (bucket, xid, id, topic, payload, key, metadata, due, stored)
SELECT u.bucket, own.xid, u.id, u.topic, u.payload, u.key, u.metadata, u.due, u.stored
FROM own, unparked u ORDER BY u.position"""
_BACKLOG = """SELECT count(*), coalesce(min(stored), 0) FROM protoflow_outbox
WHERE parked IS NULL"""


class PostgresOutbox:
    """An outbox in a PostgreSQL database. Several relays can share it: each has some of the
    buckets.

    Args:
        url: the database, as for the transport: `postgresql://user@host/name`.
        lease: seconds after which other relays take the buckets of an inactive relay.
        create: whether missing tables are created; otherwise create them in a migration with
            `protoflow.outbox.schema`.
    """

    def __init__(
        self, url: str | TransportURL, *, lease: float = 15.0, create: bool = True
    ) -> None:
        self._database = OutboxDatabase(TransportURL.parse(url) if isinstance(url, str) else url)
        self._lease = BucketLease(self._database, lease)
        self._cursor = Cursor(self._database)
        self._create = create
        self._connected = False
        self._connecting = asyncio.Lock()

    async def store(self, messages: Sequence[Message], connection: Any) -> None:
        """Stores messages; durable when it returns, or when the given connection commits.

        Raises:
            PublishRefusedError: a message cannot be stored; then none is stored.
        """
        if connection is not None:
            await store_in(connection, messages)
            return
        statement, rows = insertion("postgresql", messages)
        for values in rows:
            await self._fetch(statement, *values)

    async def claim(self, relay: object) -> bool:
        """Whether this relay owns buckets; also takes or gives back buckets for a fair share."""
        await self._connect()
        if await self._lease.balance(relay):
            self._cursor.restart()
        return bool(self._lease.buckets_of(relay))

    def holds(self, relay: object) -> bool:
        """Whether the lease is valid; see `RelayedOutbox`."""
        return bool(self._lease.buckets_of(relay))

    async def release(self, relay: object) -> None:
        """Releases the buckets for other relays."""
        await self._lease.release(relay)

    async def pending(
        self, limit: int, behind: Collection[int] = (), *, again: bool = True
    ) -> Sequence[Pending]:
        """Returns the oldest messages of owned buckets; see `RelayedOutbox`."""
        if again or behind:
            self._cursor.restart()
        if behind:
            rows = await self._fetch(_BEHIND, self._lease.buckets, limit, [*behind])
        else:
            rows = await self._cursor.read(self._lease.buckets, limit)
        return [pending_of(*row) for row in rows]

    async def delete(self, positions: Collection[int]) -> None:
        """Deletes messages that were published or dropped. Another owner of their buckets need not
        publish them again, so this is not fenced."""
        await self._fetch(_DELETE, [*positions])

    async def park(self, position: int, reason: str) -> None:
        """Parks a message that cannot be published: it is kept, but no longer pending."""
        await self._fetch(_PARK, position, reason)

    async def parked(self, limit: int = 100, *, after: int = 0) -> Sequence[Parked]:
        """Returns the oldest messages after a position that could not be published."""
        rows = await self._fetch(_PARKED, limit, after)
        return [Parked(row[0], pending_of(*row[:-1]).message, row[-1]) for row in rows]

    async def unpark(self, positions: Collection[int]) -> None:
        """Makes parked messages pending again, at new positions."""
        await self._fetch(_UNPARK, [*positions])

    async def backlog(self) -> tuple[int, float]:
        """Returns the number of pending messages, and the time of the oldest."""
        ((count, oldest),) = await self._fetch(_BACKLOG)
        return int(count), float(oldest)

    async def close(self) -> None:
        """Gives back the buckets and disconnects."""
        self._connected = False
        await self._lease.close()
        await self._database.disconnect()

    async def _fetch(self, statement: str, *values: object) -> list[Any]:
        await self._connect()
        return await self._database.fetch(statement, *values)

    async def _connect(self) -> None:
        if self._connected:
            return
        async with self._connecting:
            if not self._connected:
                await self._database.connect()
                try:
                    await self._prepare()
                except BaseException:
                    # all steps are repeated, because the tables may not exist yet
                    self._database.abort()
                    raise
                self._connected = True

    async def _prepare(self) -> None:
        if self._create:
            async with self._database.transaction() as connection:
                await connection.execute(POSTGRESQL_LOCK)
                if not await connection.fetchval(
                    "SELECT to_regclass('protoflow_outbox_buckets') IS NOT NULL"
                ):
                    await connection.execute(POSTGRESQL)
