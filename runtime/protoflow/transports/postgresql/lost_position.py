"""A group whose position lies beyond what the server has seen.

A dump keeps the numbers of transactions, and the server that restores it begins to count anew. A
promoted standby that was behind lacks the last transactions; there only the memory of a process is
ahead, and what the tables say is right.
"""

from __future__ import annotations

import logging

from protoflow.errors import TransportError
from protoflow.transports.postgresql import members, positions
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.members import Membership

_log = logging.getLogger("protoflow.transports.postgresql")
_IS_AHEAD = """
SELECT bool_or(pg_snapshot_xmax(open) > pg_snapshot_xmax(pg_current_snapshot())) FROM (
  SELECT open FROM {s}.cursors WHERE group_id = $1
  UNION ALL SELECT open FROM {s}.progress WHERE group_id = $1) AS position
"""
_LOCK = "SELECT id FROM {s}.groups WHERE id = $1 FOR UPDATE"
_ADOPT = "SELECT {s}.adopt()"
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
    group, begin = member.group, policy == "earliest"
    start = positions.START if begin else positions.end(await positions.open_batch(database))
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
                "of the server, as after restoring a dump; set on_lost_position to earliest or "
                "latest"
            )
        await connection.execute(database.sql(_ADOPT))
        await members.replace_position(database, connection, group, start)
        await connection.execute(database.sql(_END_MEMBERS), group.id)
    _log.warning("a position was lost", extra={"topic": group.topic_name, "now": policy})
