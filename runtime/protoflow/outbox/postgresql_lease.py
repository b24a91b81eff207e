"""The buckets of an outbox that a relay owns: a share of all, under a lease.

A database cannot fence messages that are sent to a broker. If a relay stops for longer than its
lease between its last check and a submission, another relay has published the same messages
meanwhile. Consumers then get them twice, and later messages of a key perhaps before earlier ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Final

from protoflow.errors import TransportError
from protoflow.outbox.postgresql_database import OutboxDatabase
from protoflow.outbox.tables import BUCKETS
from protoflow.transports.postgresql.database import Connection

_log = logging.getLogger("protoflow.outbox")
#: At least this share of a lease is left for a submission.
_MARGIN: Final = 0.3
# Only one relay balances at a time. A statement with a snapshot older than another relay's joining
# does not see that relay, and would take its buckets as soon as they are unlocked.
_ALONE = "SELECT pg_advisory_xact_lock(hashtext('protoflow_outbox_buckets'))"
_JOIN = """INSERT INTO protoflow_outbox_relays (lease_until)
VALUES (extract(epoch FROM clock_timestamp()) + $1) RETURNING id"""
_RENEW = """UPDATE protoflow_outbox_relays
SET lease_until = extract(epoch FROM clock_timestamp()) + $2 WHERE id = $1 RETURNING id"""
_EXPIRE = """DELETE FROM protoflow_outbox_relays WHERE id IN (
    SELECT id FROM protoflow_outbox_relays
    WHERE lease_until < extract(epoch FROM clock_timestamp()) FOR UPDATE SKIP LOCKED)"""
_RELAYS = "SELECT count(*) FROM protoflow_outbox_relays"
_FREE = (
    "UPDATE protoflow_outbox_buckets SET relay = NULL WHERE relay = $1 AND bucket = ANY ($2::int[])"
)
_TAKE = """UPDATE protoflow_outbox_buckets SET relay = $1 WHERE bucket IN (
    SELECT bucket FROM protoflow_outbox_buckets b
    WHERE relay IS NULL OR NOT EXISTS (SELECT 1 FROM protoflow_outbox_relays r WHERE r.id = b.relay)
    ORDER BY bucket LIMIT $2 FOR UPDATE SKIP LOCKED)"""
_OWNED = "SELECT bucket FROM protoflow_outbox_buckets WHERE relay = $1 ORDER BY bucket"
_LEAVE = "DELETE FROM protoflow_outbox_relays WHERE id = $1"


class BucketLease:
    """The buckets of one relay in this process; a separate task renews them.

    Args:
        database: the database of the outbox.
        lease: the duration of the lease in seconds.
    """

    def __init__(self, database: OutboxDatabase, lease: float) -> None:
        self._database = database
        self._seconds = lease
        self._usable = lease * (1 - _MARGIN)
        self._owner: object = None
        self._id: int | None = None
        self._valid_until = 0.0
        self._balance_at = 0.0
        self._renewing: asyncio.Task[None] | None = None
        self.buckets: Sequence[int] = ()

    def buckets_of(self, relay: object) -> Sequence[int]:
        """Returns the buckets that this relay may publish for long enough; none if they are
        lost."""
        if relay is not self._owner or time.monotonic() > self._valid_until:
            return ()
        return self.buckets

    async def balance(self, relay: object) -> bool:
        """Takes free buckets, and gives back those above a fair share; no message of them may be in
        flight. Returns whether the owned buckets have changed. Raises TransportError."""
        if self._owner is None:
            self._owner = relay
        if relay is not self._owner:
            return False
        now = time.monotonic()
        if now < self._balance_at and now <= self._valid_until:
            return False
        before = self.buckets
        async with self._database.transaction() as connection:
            await connection.execute(_ALONE)
            await self._renew(connection)
            await connection.execute(_EXPIRE)
            relays = await connection.fetchval(_RELAYS)
            share = -(-BUCKETS // max(1, relays))
            owned = [bucket for (bucket,) in await connection.fetch(_OWNED, self._id)]
            if owned[share:]:
                await connection.execute(_FREE, self._id, owned[share:])
            elif len(owned) < share:
                await connection.execute(_TAKE, self._id, share - len(owned))
            owned = [bucket for (bucket,) in await connection.fetch(_OWNED, self._id)]
        self.buckets = owned
        self._valid_until = now + self._usable
        self._balance_at = now + self._seconds / 10
        if self._renewing is None:
            self._renewing = asyncio.get_running_loop().create_task(self._keep())
        return owned != before

    async def release(self, relay: object) -> None:
        """Gives all buckets back. Raises TransportError."""
        if relay is self._owner:
            await self.close()

    async def close(self) -> None:
        """Gives all buckets back if the database can be reached; otherwise the lease expires."""
        self._owner, self.buckets = None, ()
        own, self._id = self._id, None
        task, self._renewing = self._renewing, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        if own is not None:
            with contextlib.suppress(TransportError):  # the lease expires without further action
                await self._database.fetch(_LEAVE, own)

    async def _renew(self, connection: Connection) -> None:
        """Renews the lease, or joins for the first time or after the lease expired."""
        if self._id is not None:
            if await connection.fetchval(_RENEW, self._id, self._seconds) is not None:
                return
            _log.warning("the lease of an outbox relay expired; its buckets go to others")
        self._id = await connection.fetchval(_JOIN, self._seconds)

    async def _keep(self) -> None:
        """Renews the lease while a batch takes long."""
        while True:
            await asyncio.sleep(self._seconds / 4)
            began, own = time.monotonic(), self._id
            with contextlib.suppress(TransportError):  # the lease is longer than several attempts
                found = await self._database.fetch(_RENEW, own, self._seconds)
                if own == self._id:
                    self._valid_until = began + self._usable if found else 0.0
