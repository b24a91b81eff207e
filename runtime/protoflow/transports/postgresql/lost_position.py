"""A group whose position is above the ids of transactions that the server has used.

If a dump was restored, `transaction_ids` prevents this. If a standby was promoted that lacks the
last transactions, only the memory of a process is ahead, and the tables are right. In all other
cases the position is lost: it was damaged, or `pg_resetwal` lowered the ids of the server.
"""

from __future__ import annotations

import logging

from protoflow.error_codes import POSITION_LOST
from protoflow.errors import TransportError
from protoflow.transports.postgresql import members, positions
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.positions import Opening
from protoflow.transports.postgresql.transaction_ids import check_server

_log = logging.getLogger("protoflow.transports.postgresql")
_IS_AHEAD = """
SELECT bool_or(pg_snapshot_xmax(open) > pg_snapshot_xmax({snapshot})) FROM (
  SELECT open FROM {s}.cursors WHERE group_id = $1
  UNION ALL SELECT open FROM {s}.progress WHERE group_id = $1) AS position
"""
_LOCK = "SELECT id FROM {s}.groups WHERE id = $1 FOR UPDATE"
# After this the ids in the tables are below those of the server, so no other group loses rows.
_SHIFT = "SELECT {s}.shift_ids()"
_END_MEMBERS = "UPDATE {s}.members SET until = 0 WHERE group_id = $1"
_END_MEMBER = "UPDATE {s}.members SET until = 0 WHERE id = $1"


class PositionLostError(TransportError):
    """A position is ahead of the server."""


async def recover(database: Database, member: Membership, policy: str) -> None:
    """Gives a group a position that means something to the server, if its own does not; the
    member is none any more.

    Raises:
        TransportError: the position is lost, and `on_lost_position` is `stop`.
    """
    group = member.group
    await check_server(database)
    upto = await positions.raise_ids(database)
    async with database.transaction() as connection:
        await connection.execute(database.sql(_LOCK), group.id)
        if not await connection.fetchval(database.sql(_IS_AHEAD), group.id):
            await connection.execute(database.sql(_END_MEMBER), member.id)
            _log.warning(
                "the server is behind what this process has seen; what was settled last may be "
                "handled again",
                extra={"topic": group.topic_name},
            )
            return
        if policy == "stop":
            raise TransportError(
                f"the position of a group of {group.topic_name} lies beyond the last transaction "
                "of the server; set on_lost_position to earliest or latest",
                code=POSITION_LOST,
            )
        await connection.execute(database.sql(_SHIFT))
        position = positions.START
        if policy == "latest":
            opened, high = await connection.fetchrow(database.sql(positions.OPEN))
            position = positions.end(Opening(opened, high, upto))
        await members.replace_position(database, connection, group, position)
        await connection.execute(database.sql(_END_MEMBERS), group.id)
    _log.warning("a position was lost", extra={"topic": group.topic_name, "now": policy})
