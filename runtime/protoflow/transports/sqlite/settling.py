"""Statements that settle: acknowledge, give back, mark, unblock."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import dataclass

from protoflow.contract.spec import Ordering
from protoflow.transports.sqlite.schema import BLOCKED, REPLAYS
from protoflow.transports.sqlite.topics import Group, Session

#: The number of messages of a lane that are unblocked at once.
_UNBLOCK = 64

_LISTED = "sequence IN (SELECT value FROM json_each(?))"
_RANGE = "sequence BETWEEN ? AND ?"
_HOLDS = "SELECT 1 FROM protoflow_sessions WHERE id = ?"
_ACK = """
DELETE FROM protoflow_deliveries WHERE group_id = ? AND token = ? AND {}
"""
_HELD = f"""
SELECT count(*) FROM protoflow_deliveries WHERE group_id = ? AND token = ? AND {_LISTED}
"""  # noqa: S608  a constant
# A message is deleted when every group is beyond it, no group has a row for it, and it is no dead
# letter.
_REMOVE = """
DELETE FROM protoflow_messages WHERE {{}}
AND (sequence <= (SELECT min(position) FROM protoflow_groups WHERE topic = ?) OR sequence > {})
AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries d
  WHERE d.sequence = protoflow_messages.sequence)
AND NOT EXISTS (SELECT 1 FROM protoflow_letters l
  WHERE l.sequence = protoflow_messages.sequence)
""".format(REPLAYS)  # noqa: S608, UP032  a number; the braces are for the condition
# The same for a range, if all of it can be removed, which is usual. This is asked once, not for
# each message.
_ALL_REMOVABLE = """
SELECT ?2 <= (SELECT min(position) FROM protoflow_groups WHERE topic = ?3)
AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries WHERE sequence BETWEEN ?1 AND ?2)
AND NOT EXISTS (SELECT 1 FROM protoflow_letters WHERE sequence BETWEEN ?1 AND ?2)
"""
_REMOVE_ALL = f"DELETE FROM protoflow_messages WHERE {_RANGE}"  # noqa: S608  a constant
_GIVE_BACK = """
UPDATE protoflow_deliveries SET token = 0, until = ?1, due = ?1, failures = ?2,
  first_failure = ?3, deliveries = deliveries - ?4, mark = 0
WHERE sequence = ?5 AND group_id = ?6 AND token = ?7
"""
_HELD_ROWS = """
SELECT sequence, lane, failures, first_failure FROM protoflow_deliveries
WHERE group_id = ? AND token = ? ORDER BY sequence
"""
_MARK = """
UPDATE protoflow_deliveries SET mark = mark + 1
WHERE sequence = ?1 AND group_id = ?2 AND token = ?3
"""
_CLEAR = """
UPDATE protoflow_deliveries SET mark = CASE WHEN token = ?3 THEN 0 ELSE max(mark - 1, 0) END
WHERE sequence = ?1 AND group_id = ?2
"""
_BLOCK_LANE = """
UPDATE protoflow_deliveries SET until = ?3
WHERE group_id = ?1 AND lane = ?2 AND token = 0 AND until <> ?3
"""
_ANY_BLOCKED = """
SELECT 1 FROM protoflow_deliveries WHERE group_id = ? AND token = 0 AND until = ? LIMIT 1
"""
# The first rows of a lane, up to the first that must still wait, if no session holds any.
_UNBLOCK_LANE = """
UPDATE protoflow_deliveries SET until = due
WHERE group_id = ?1 AND until = ?3 AND sequence IN (
  SELECT sequence FROM protoflow_deliveries
  WHERE group_id = ?1 AND lane = ?2 AND token = 0 ORDER BY sequence LIMIT ?5)
AND sequence <= coalesce((SELECT min(sequence) FROM protoflow_deliveries
  WHERE group_id = ?1 AND lane = ?2 AND token = 0 AND due > ?4), sequence)
AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries
  WHERE group_id = ?1 AND lane = ?2 AND token <> 0)
"""


@dataclass(slots=True)
class GivenBack:
    """A delivery that is given back."""

    sequence: int
    lane: bytes | None
    due: float = 0.0
    failures: int = 0
    first_failure: float = 0.0
    uncounted: int = 0


def exists(connection: sqlite3.Connection, session: int) -> bool:
    """Returns whether the session still exists."""
    return bool(connection.execute(_HOLDS, (session,)).fetchall())


def acknowledge(
    connection: sqlite3.Connection, group: Group, session: int, acked: Sequence[int]
) -> None:
    """Removes finished messages from a group, and from its topic if no group needs them."""
    first, last = min(acked), max(acked)
    condition = _LISTED
    values: Sequence[object] = [json.dumps(acked)]
    if last - first + 1 == len(acked):
        condition, values = _RANGE, [first, last]
    connection.execute(_ACK.format(condition), (group.id, session, *values))
    if condition is _RANGE:
        removable = connection.execute(_ALL_REMOVABLE, (first, last, group.topic)).fetchone()
        if removable[0]:
            connection.execute(_REMOVE_ALL, (first, last))
            return
    connection.execute(_REMOVE.format(condition), (*values, group.topic))


def acknowledged(
    connection: sqlite3.Connection, group: Group, session: int, sequences: Sequence[int]
) -> bool:
    """Returns whether rows of the session were acknowledged, all or none."""
    found = connection.execute(_HELD, (group.id, session, json.dumps(sequences))).fetchone()
    return not found[0]


def read_mark(session: Session, sequence: int, connection: sqlite3.Connection) -> int | None:
    """Returns the start marks of a row; None if the session does not hold it."""
    query = (
        "SELECT CAST(mark AS INTEGER) FROM protoflow_deliveries "
        "WHERE sequence = ? AND group_id = ? AND token = ?"
    )
    row = connection.execute(query, (sequence, session.group.id, session.id)).fetchone()
    return row[0] if row else None


def change_mark(session: Session, sequence: int, more: int, connection: sqlite3.Connection) -> bool:
    """Adds a mark to a row that the session holds, or removes its marks. From a row that other
    sessions hold, at most this session's mark is removed. Returns whether the row was changed."""
    query = _MARK if more else _CLEAR
    values = (sequence, session.group.id, session.id)
    return connection.execute(query, values).rowcount == 1


def give_back(connection: sqlite3.Connection, group: Group, session: int, item: GivenBack) -> None:
    """Frees one row; its lane must then be put in order (`order_lanes`)."""
    connection.execute(
        _GIVE_BACK,
        (
            item.due,
            item.failures,
            item.first_failure,
            item.uncounted,
            item.sequence,
            group.id,
            session,
        ),
    )


def give_back_unknown(
    connection: sqlite3.Connection,
    group: Group,
    session: int,
    known: Collection[Hashable],
    now: float,
) -> None:
    """Frees the rows of a session that its process does not know."""
    held = connection.execute(_HELD_ROWS, (group.id, session)).fetchall()
    lanes: set[bytes] = set()
    for sequence, lane, failures, first_failure in held:
        if sequence not in known:
            item = GivenBack(
                sequence, lane, failures=failures, first_failure=first_failure, uncounted=1
            )
            give_back(connection, group, session, item)
            if lane is not None:
                lanes.add(lane)
    order_lanes(connection, group.id, lanes, now)


def order_lanes(
    connection: sqlite3.Connection, group: int, lanes: Iterable[bytes], now: float
) -> None:
    """Puts lanes in order after rows were freed.

    A freed row need not be the first of its lane: a message that was published later may wait
    before a replay. So all free rows are blocked, and then unblocked from the start of the lane.
    """
    for lane in lanes:
        connection.execute(_BLOCK_LANE, (group, lane, BLOCKED))
        connection.execute(_UNBLOCK_LANE, (group, lane, BLOCKED, now, _UNBLOCK))


def unblock(
    connection: sqlite3.Connection, group: Group, lanes: Iterable[bytes], now: float
) -> None:
    """Makes the next messages of lanes available."""
    if group.ordering is Ordering.NONE:
        return
    if connection.execute(_ANY_BLOCKED, (group.id, BLOCKED)).fetchall():
        for lane in lanes:
            connection.execute(_UNBLOCK_LANE, (group.id, lane, BLOCKED, now, _UNBLOCK))
