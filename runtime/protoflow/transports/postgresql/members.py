"""Groups and their members. A member's row is the lease of everything that it holds."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import NamedTuple

from protoflow.contract.spec import Ordering, Start
from protoflow.error_codes import LEASE_LOST
from protoflow.errors import ProtoflowError, TopologyError, TransportError
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.postgresql import positions, transaction_ids
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.schema import BUCKETS

_log = logging.getLogger("protoflow.transports.postgresql")
_ORDERINGS = {Ordering.NONE: 0, Ordering.PER_KEY: 1, Ordering.PER_PARTITION: 2}
_GROUP = "SELECT id, ordering FROM {s}.groups WHERE topic = $1 AND name = $2"
_NEW_GROUP = """
INSERT INTO {s}.groups (topic, name, ordering, broadcast) VALUES ($1, $2, $3, $4)
ON CONFLICT (topic, name) DO NOTHING RETURNING id
"""
_NEW_CURSOR = """
INSERT INTO {s}.cursors VALUES ($1, $2::text::pg_snapshot, $3::text::pg_snapshot, $4, $5, $6, $7)
"""
_NEW_PROGRESS = """
INSERT INTO {s}.progress SELECT $1, b, $2::text::pg_snapshot, $3::text::pg_snapshot, $4, $5, $6, $7,
  '{}' FROM generate_series(0, $8::int - 1) AS g(b)
"""
_NEW_OWNERS = """
INSERT INTO {s}.owners (group_id, bucket) SELECT $1, b FROM generate_series(0, $2::int - 1) AS g(b)
"""
_FORGET_POSITION = (
    "DELETE FROM {s}.failures WHERE group_id = $1",
    "DELETE FROM {s}.cursors WHERE group_id = $1",
    "DELETE FROM {s}.owners WHERE group_id = $1",
    "DELETE FROM {s}.progress WHERE group_id = $1",
)
_DROP_GROUP = (
    "DELETE FROM {s}.claims WHERE group_id = $1",
    "DELETE FROM {s}.waiting WHERE group_id = $1",
    *_FORGET_POSITION,
    "DELETE FROM {s}.members WHERE group_id = $1",
    "DELETE FROM {s}.groups WHERE id = $1",
)
_ALIVE = """
SELECT EXISTS (SELECT 1 FROM {s}.members WHERE group_id = $1 AND until >= {s}.now())
"""
_JOIN = """
INSERT INTO {s}.members (group_id, client, until) VALUES ($1, $2, {s}.now() + $3)
RETURNING id, pg_postmaster_start_time()::text
"""
_RENEW = "UPDATE {s}.members SET until = {s}.now() + $2 WHERE id = $1 RETURNING id"
_EXPIRED = """
DELETE FROM {s}.members WHERE id IN (
  SELECT id FROM {s}.members WHERE until < {s}.now() FOR UPDATE SKIP LOCKED)
RETURNING id, group_id
"""
# The order of the rows is that of every other statement, so that nobody waits in a circle.
_FREE_CLAIMS = "UPDATE {s}.claims SET member = NULL WHERE member = ANY ($1::int8[])"
_FREE_WAITING = "UPDATE {s}.waiting SET member = NULL WHERE member = ANY ($1::int8[])"
_FREE_OWNERS = """
UPDATE {s}.owners SET member = NULL, crashes = crashes + 1 WHERE member = ANY ($1::int8[])
"""
_BROADCASTS = "SELECT id FROM {s}.groups WHERE id = ANY ($1::int[]) AND broadcast"
_CLAIMING = """
SELECT pg_current_xact_id()::text FROM set_config('synchronous_commit', 'off', true) AS a,
  set_config('idle_in_transaction_session_timeout', $2, true) AS b,
  (SELECT id FROM {s}.members WHERE id = $1 FOR KEY SHARE) AS member
"""


class ServerChangedError(TransportError):
    """The server is another than a member joined at, or it was started again."""


class Group(NamedTuple):
    """A group of a topic."""

    id: int
    topic: int
    topic_name: str
    ordering: Ordering


async def find_group(database: Database, topic: str, name: str) -> Group | None:
    """Returns a group, if it exists."""
    rows = await database.fetch(
        "SELECT g.id, g.topic, g.ordering FROM {s}.groups g JOIN {s}.topics t ON t.id = g.topic "
        "WHERE t.name = $1 AND g.name = $2",
        topic,
        name,
    )
    if not rows:
        return None
    orderings = {number: ordering for ordering, number in _ORDERINGS.items()}
    return Group(rows[0][0], rows[0][1], topic, orderings[rows[0][2]])


async def make_group(database: Database, settings: SubscriptionSettings) -> Group:
    """Returns the group of a subscription, which is created if need be.

    Raises:
        TopologyError: the group has work under way, and another kind of ordering.
    """
    topic = (await database.topic_ids([settings.topic]))[settings.topic]
    name = f"{settings.group}..{uuid.uuid4().hex}" if settings.broadcast else settings.group
    wanted = _ORDERINGS[settings.ordering]
    position = positions.START
    if settings.start is Start.LATEST or settings.broadcast:
        position = positions.end(await positions.open_batch(database))
    async with database.transaction() as connection:
        id = await connection.fetchval(
            database.sql(_NEW_GROUP), topic, name, wanted, settings.broadcast
        )
        if id is not None:
            await _place(database, connection, id, position, ordered=wanted > 0)
        else:
            row = await connection.fetchrow(database.sql(_GROUP), topic, name)
            id, ordering = row
            if (ordering > 0) != (wanted > 0):
                raise TopologyError(
                    f"group {settings.group} of {settings.topic} was made "
                    f"{'with' if ordering else 'without'} an order; drain it with the old "
                    "contract, and give the new contract another group"
                )
            if ordering != wanted:
                await connection.execute(
                    database.sql("UPDATE {s}.groups SET ordering = $2 WHERE id = $1"), id, wanted
                )
    return Group(id, topic, settings.topic, settings.ordering)


def same_kind(one: Ordering, other: Ordering) -> bool:
    """Whether groups with these orderings keep their positions alike."""
    return (one is Ordering.NONE) == (other is Ordering.NONE)


async def convert_group(
    database: Database, group: Group, ordering: Ordering, position: positions.Position
) -> None:
    """Makes a group without work another kind of group, unless it has members."""
    async with database.transaction() as connection:
        await connection.execute(
            database.sql("SELECT id FROM {s}.groups WHERE id = $1 FOR UPDATE"), group.id
        )
        if await connection.fetchval(database.sql(_ALIVE), group.id):
            return
        await replace_position(database, connection, group._replace(ordering=ordering), position)
        await connection.execute(
            database.sql("UPDATE {s}.groups SET ordering = $2 WHERE id = $1"),
            group.id,
            _ORDERINGS[ordering],
        )


async def replace_position(
    database: Database, connection: Connection, group: Group, position: positions.Position
) -> None:
    """Moves a group to a position; nobody owns anything of it then."""
    for statement in _FORGET_POSITION:
        await connection.execute(database.sql(statement), group.id)
    ordered = group.ordering is not Ordering.NONE
    await _place(database, connection, group.id, position, ordered=ordered)


async def _place(
    database: Database,
    connection: Connection,
    group: int,
    position: positions.Position,
    *,
    ordered: bool,
) -> None:
    if ordered:
        await connection.execute(database.sql(_NEW_PROGRESS), group, *position, BUCKETS)
        await connection.execute(database.sql(_NEW_OWNERS), group, BUCKETS)
    else:
        seqs = [position.seq] * BUCKETS
        await connection.execute(database.sql(_NEW_CURSOR), group, *position[:5], seqs)


_OWNED = """
SELECT bucket, pg_current_xact_id()::text FROM {s}.owners WHERE group_id = $1
  AND bucket = ANY ($2::int[]) AND member = $3 AND pg_postmaster_start_time()::text = $4 FOR SHARE
"""


class Membership:
    """A member of a group: joins, renews, leaves.

    Attributes:
        id: the member's id.
        server: the start time of the server that the member joined at. The state in memory is valid
            for this server only: a server that crashed or was promoted may lack the last messages.
        group: the group.
    """

    group: Group

    def __init__(self, database: Database, settings: SubscriptionSettings) -> None:
        self.id = 0
        self.server = ""
        self.seconds = database.options.lease or settings.lease
        self._database = database
        self._settings = settings

    async def join(self) -> None:
        """Joins the group, which is created if need be."""
        await transaction_ids.check_server(self._database)
        self.group = await make_group(self._database, self._settings)
        ((self.id, self.server),) = await self._database.fetch(
            _JOIN, self.group.id, self._database.settings.client_name, self.seconds
        )

    def check_server(self, started: str) -> None:
        """Raises ServerChangedError if the member joined at another server."""
        if started != self.server:
            raise ServerChangedError("PostgreSQL was started again, or another server is primary")

    async def lock_owned(
        self, connection: Connection, buckets: Collection[int]
    ) -> tuple[set[int], str]:
        """Returns which of the buckets the member owns until the transaction ends, and the id of
        the transaction. At a server that the member did not join, it owns none."""
        rows = await connection.fetch(
            self._database.sql(_OWNED), self.group.id, [*buckets], self.id, self.server
        )
        return {row[0] for row in rows}, rows[0][1] if rows else ""

    async def renew(self) -> bool:
        """Renews the lease. False: others have ended it, and hold what was held."""
        return bool(await self._database.fetch(_RENEW, self.id, self.seconds))

    @asynccontextmanager
    async def claiming(self) -> AsyncIterator[tuple[Connection, str]]:
        """A transaction that claims for the member, and its id; a crash of the server may undo it.

        Raises:
            TransportError: others have ended the membership, or the server failed.
        """
        async with self._database.transaction() as connection:
            xid = await connection.fetchval(
                self._database.sql(_CLAIMING), self.id, str(self._database.idle_timeout)
            )
            if xid is None:
                raise TransportError(
                    f"the lease of this member of {self.group.topic_name} ended", code=LEASE_LOST
                )
            yield connection, xid

    async def leave(self) -> None:
        """Ends the membership; what is held is free, and was not interrupted."""
        database = self._database
        try:
            async with database.transaction() as connection:
                if self._settings.broadcast:
                    await _drop(database, connection, self.group.id)
                    return
                await connection.execute(
                    database.sql("DELETE FROM {s}.members WHERE id = $1"), self.id
                )
                for statement in (_FREE_CLAIMS, _FREE_WAITING):
                    await connection.execute(database.sql(statement), [self.id])
                await connection.execute(
                    database.sql(
                        "UPDATE {s}.owners SET member = NULL, crashes = 0 WHERE member = $1"
                    ),
                    self.id,
                )
        except ProtoflowError as error:
            _log.warning("a membership ends when its lease does: %s", error)


async def end_expired(database: Database) -> bool:
    """Ends the memberships of processes that died. Whether there were any."""
    async with database.transaction() as connection:
        rows = await connection.fetch(database.sql(_EXPIRED))
        if not rows:
            return False
        members = [row[0] for row in rows]
        for statement in (_FREE_CLAIMS, _FREE_WAITING, _FREE_OWNERS):
            await connection.execute(database.sql(statement), members)
        groups = await connection.fetch(database.sql(_BROADCASTS), [row[1] for row in rows])
        for (group,) in groups:
            await _drop(database, connection, group)
    return True


async def _drop(database: Database, connection: Connection, group: int) -> None:
    for statement in _DROP_GROUP:
        await connection.execute(database.sql(statement), group)
