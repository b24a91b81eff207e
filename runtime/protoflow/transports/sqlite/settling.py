"""Settling: acknowledge, give back, and publish outputs, all in one transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from protoflow.contract.spec import Ordering
from protoflow.message import Delivery
from protoflow.transports.sqlite.publishing import Outgoing
from protoflow.transports.sqlite.schema import BLOCKED, REPLAYS
from protoflow.transports.sqlite.topics import Group, Session

#: How many messages of a lane are unblocked at once when what held them back is done.
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
# A message goes when every group is beyond it, no group has it to do and it is no dead letter.
_REMOVE = """
DELETE FROM protoflow_messages WHERE {{}}
AND (sequence <= (SELECT min(position) FROM protoflow_groups WHERE topic = ?) OR sequence > {})
AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries d
  WHERE d.sequence = protoflow_messages.sequence)
AND NOT EXISTS (SELECT 1 FROM protoflow_letters l
  WHERE l.sequence = protoflow_messages.sequence)
""".format(REPLAYS)  # noqa: S608, UP032  a number; the braces are for the condition
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
_BLOCK_IF_BEHIND = """
UPDATE protoflow_deliveries SET until = ?4
WHERE sequence = ?1 AND group_id = ?2 AND EXISTS (SELECT 1 FROM protoflow_deliveries e
  WHERE e.group_id = ?2 AND e.lane = ?3 AND e.token = 0 AND e.sequence < ?1
  AND e.until > ?5)
"""
_BLOCK_BEHIND = """
UPDATE protoflow_deliveries SET until = ?4
WHERE group_id = ?2 AND lane = ?3 AND token = 0 AND sequence > ?1
"""
_ANY_BLOCKED = """
SELECT 1 FROM protoflow_deliveries WHERE group_id = ? AND token = 0 AND until = ? LIMIT 1
"""
# The first rows of a lane, up to the first that has still to wait, if nobody holds any.
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
    """A delivery that comes again."""

    sequence: int
    lane: bytes | None
    due: float = 0.0
    failures: int = 0
    first_failure: float = 0.0
    uncounted: int = 0


@dataclass(slots=True)
class Settling:
    """What one member settles; runs in the thread, in a transaction."""

    group: Group
    session: int
    now: float
    acked: list[int] = field(default_factory=list)
    lanes: set[bytes] = field(default_factory=set)
    given_back: list[GivenBack] = field(default_factory=list)
    outgoing: Outgoing | None = None

    @property
    def topics(self) -> set[str]:
        """The topics that are published to."""
        return set(self.outgoing.topics) if self.outgoing is not None else set()

    def add_outgoing(self, outgoing: Outgoing) -> None:
        """Publishes more."""
        if self.outgoing is None:
            self.outgoing = outgoing
        else:
            self.outgoing.merge(outgoing)

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        """Acknowledges more."""
        for delivery in deliveries:
            self.acked.append(delivery.receipt)
            self.add_lane(delivery)

    def add_lane(self, delivery: Delivery) -> None:
        """An acknowledged delivery may have held back others."""
        if (lane := self.group.lane(delivery.message.key)) is not None:
            self.lanes.add(lane)

    def copy(self) -> Settling:
        """The same, to which more can be added."""
        return replace(self, acked=[*self.acked], lanes={*self.lanes})

    def run(self, connection: sqlite3.Connection) -> bool:
        """Settles everything; False, and nothing done, if the session is lost.

        A session holds its rows until it is ended as a whole, so its own row is all that
        has to be looked at.
        """
        if not connection.execute(_HOLDS, (self.session,)).fetchall():
            return False
        if self.outgoing is not None:
            self.outgoing.write(connection)
        if self.acked:
            self._acknowledge(connection)
        for item in self.given_back:
            give_back(connection, self.group, self.session, item, self.now)
        if self.lanes:
            unblock(connection, self.group, self.lanes, self.now)
        return True

    def _acknowledge(self, connection: sqlite3.Connection) -> None:
        acked = self.acked
        first, last = min(acked), max(acked)
        where: tuple[str, Sequence[object]] = (_LISTED, (json.dumps(acked),))
        if last - first + 1 == len(acked):
            where = (_RANGE, (first, last))
        condition, values = where
        connection.execute(_ACK.format(condition), (self.group.id, self.session, *values))
        connection.execute(_REMOVE.format(condition), (*values, self.group.topic))


def acknowledged(
    connection: sqlite3.Connection, group: Group, session: int, sequences: Sequence[int]
) -> bool:
    """Whether rows that the session held are gone: they were acknowledged, all or none."""
    found = connection.execute(_HELD, (group.id, session, json.dumps(sequences))).fetchone()
    return not found[0]


def read_mark(session: Session, sequence: int, connection: sqlite3.Connection) -> int | None:
    """The start marks of a row that the session holds; None if it does not."""
    query = (
        "SELECT CAST(mark AS INTEGER) FROM protoflow_deliveries "
        "WHERE sequence = ? AND group_id = ? AND token = ?"
    )
    row = connection.execute(query, (sequence, session.group.id, session.id)).fetchone()
    return row[0] if row else None


def change_mark(session: Session, sequence: int, more: int, connection: sqlite3.Connection) -> bool:
    """Marks a row that the session holds once more, or takes its marks away. Of a row that
    others hold by now, at most the mark of this session is taken away. Whether it was changed."""
    query = _MARK if more else _CLEAR
    values = (sequence, session.group.id, session.id)
    return connection.execute(query, values).rowcount == 1


def give_back(
    connection: sqlite3.Connection, group: Group, session: int, item: GivenBack, now: float
) -> None:
    """Frees one row, and sees to the order of its lane."""
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
    if item.lane is not None:
        place = (item.sequence, group.id, item.lane, BLOCKED)
        connection.execute(_BLOCK_IF_BEHIND, (*place, now))
        if item.due > now:
            connection.execute(_BLOCK_BEHIND, place)


def give_back_unknown(
    connection: sqlite3.Connection, group: Group, session: int, known: Collection[int], now: float
) -> None:
    """Frees the rows that a session holds and knows nothing of."""
    held = connection.execute(_HELD_ROWS, (group.id, session)).fetchall()
    for sequence, lane, failures, first_failure in held:
        if sequence not in known:
            item = GivenBack(
                sequence, lane, failures=failures, first_failure=first_failure, uncounted=1
            )
            give_back(connection, group, session, item, now)


def unblock(
    connection: sqlite3.Connection, group: Group, lanes: Iterable[bytes], now: float
) -> None:
    """Lets the next messages of lanes be claimed."""
    if group.ordering is Ordering.NONE:
        return
    if connection.execute(_ANY_BLOCKED, (group.id, BLOCKED)).fetchall():
        for lane in lanes:
            connection.execute(_UNBLOCK_LANE, (group.id, lane, BLOCKED, now, _UNBLOCK))
