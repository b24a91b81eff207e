"""Claiming: a group's free rows first, then what lies beyond its position."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from protoflow.contract.spec import Ordering
from protoflow.message import Delivery
from protoflow.transports.sqlite import rows
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.schema import BLOCKED
from protoflow.transports.sqlite.settling import give_back_unknown
from protoflow.transports.sqlite.topics import Group

#: How many messages one claim takes at most.
MAX_CLAIM = 1000
#: How many fresh messages are looked at one by one in one claim.
SCAN = MAX_CLAIM

_STATE = """
SELECT g.position,
  (SELECT 1 FROM protoflow_sessions s WHERE s.id = ?2),
  (SELECT min(until) FROM protoflow_deliveries d WHERE d.group_id = ?1 AND d.token = 0)
FROM protoflow_groups g WHERE g.id = ?1
"""
_FREE = """
SELECT group_concat(sequence), group_concat(CAST(size AS INTEGER)) FROM (
  SELECT d.sequence, m.size FROM protoflow_deliveries d
  JOIN protoflow_messages m ON m.sequence = d.sequence
  WHERE d.group_id = ?1 AND d.token = 0 AND d.until <= ?3 {}
  ORDER BY {} LIMIT ?4)
"""
HELD_ELSEWHERE = """
  AND NOT EXISTS (SELECT 1 FROM protoflow_deliveries e WHERE e.group_id = ?1
    AND e.lane = d.lane AND e.token NOT IN (0, ?2))
"""
# By sequence: within a lane nothing goes before its turn, whatever it waited for.
_FREE_OF_LANES = _FREE.format(HELD_ELSEWHERE, "d.sequence")
_FREE = _FREE.format("", "d.until, d.sequence")
_TAKE_FREE = """
UPDATE protoflow_deliveries SET token = ?, deliveries = deliveries + 1
WHERE group_id = ? AND sequence IN (SELECT value FROM json_each(?))
"""
_COUNTS = """
SELECT group_concat(CAST(deliveries AS INTEGER)), group_concat(CAST(failures AS INTEGER)),
  group_concat(CAST(first_failure AS REAL)), group_concat(CAST(mark AS INTEGER))
FROM (SELECT * FROM protoflow_deliveries WHERE group_id = ?
  AND sequence IN (SELECT value FROM json_each(?)) ORDER BY sequence)
"""
_FRESH = """
SELECT count(*), total(size), max(sequence), count(due) FROM (
  SELECT sequence, size, due FROM protoflow_messages
  WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?)
"""
_SCAN = """
SELECT group_concat(sequence), group_concat(CAST(size AS INTEGER)),
  group_concat(CAST(coalesce(due, 0) AS REAL)),
  group_concat(coalesce(hex(key), '')), max(sequence) FROM (
  SELECT sequence, size, due, key FROM protoflow_messages
  WHERE sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?)
"""
_TAKE = """
INSERT INTO protoflow_deliveries SELECT m.sequence, ?, ?, 0, 0, {}, 1, 0, 0, 0
FROM protoflow_messages m WHERE {}
"""
_SET_ASIDE = """
INSERT INTO protoflow_deliveries SELECT m.sequence, ?, 0,
  json_extract(j.value, '$[1]'), json_extract(j.value, '$[2]'), {}, 0, 0, 0, 0
FROM json_each(?) j JOIN protoflow_messages m ON m.sequence = json_extract(j.value, '$[0]')
"""
LANE = {
    Ordering.NONE: "NULL",
    Ordering.PER_KEY: "nullif(m.key, x'')",
    Ordering.PER_PARTITION: "x''",
}
_TAKE_RANGE = {
    ordering: _TAKE.format(lane, "sequence > ? AND sequence <= ?")
    for ordering, lane in LANE.items()
}
_TAKE_LISTED = {
    ordering: _TAKE.format(lane, "sequence IN (SELECT value FROM json_each(?))")
    for ordering, lane in LANE.items()
}
_HINDRANCE = """
SELECT EXISTS (SELECT 1 FROM protoflow_deliveries WHERE group_id = ?1 AND token = 0)
  OR EXISTS (SELECT 1 FROM protoflow_sessions WHERE group_id = ?1 AND id <> ?2)
"""
_PARTITION_HELD = """
SELECT EXISTS (SELECT 1 FROM protoflow_deliveries
  WHERE group_id = ? AND lane = x'' AND token <> ?)
"""
_NEXT_DUE = """
SELECT min(until) FROM protoflow_deliveries
WHERE group_id = ? AND token = 0 AND until > ? AND until < ?
"""
_ADVANCE = "UPDATE protoflow_groups SET position = ? WHERE id = ?"
_BLOCKED_KEYS = """
SELECT group_concat(hex(key)) FROM (
  SELECT DISTINCT key FROM (SELECT key FROM protoflow_messages
    WHERE sequence > ?3 AND sequence <= ?4 ORDER BY sequence LIMIT ?5) WHERE key <> x'')
WHERE EXISTS (SELECT 1 FROM protoflow_deliveries d
  WHERE d.group_id = ?1 AND d.lane = key AND d.token <> ?2)
"""


@dataclass(slots=True)
class Claimed:
    """What a claim gave; if nothing, when the next waiting message is due."""

    deliveries: list[Delivery] = field(default_factory=list)
    next_due: float | None = None


@dataclass(slots=True)
class Claim:
    """One claim of a member of a group; runs in the thread, in a transaction.

    `known` is what the member holds, where that is not sure: the claim before failed, and may
    have been written all the same. What else is held by the session is given back first.
    """

    group: Group
    session: int
    limit: int
    max_bytes: int
    now: float
    recent: Recent
    known: Collection[Hashable] | None = None

    def run(self, connection: sqlite3.Connection) -> Claimed | None:
        """Takes what may be taken; None if the session is lost."""
        state = connection.execute(_STATE, (self.group.id, self.session)).fetchone()
        if state is None or state[1] is None:
            return None
        if self.known is not None:
            give_back_unknown(connection, self.group, self.session, self.known, self.now)
            state = connection.execute(_STATE, (self.group.id, self.session)).fetchone()
        position, _, free = state
        claimed = Claimed()
        taken = claimed.deliveries
        limit = min(self.limit, MAX_CLAIM)
        used = 0
        if free is not None and free <= self.now:
            used = self._claim_free(connection, taken, limit)
        if len(taken) < limit and (not taken or used < self.max_bytes):
            self._claim_fresh(connection, claimed, position, used)
        if not taken and claimed.next_due is None:
            claimed.next_due = self._next_due(connection)
        return claimed

    def _claim_free(self, connection: sqlite3.Connection, taken: list[Delivery], limit: int) -> int:
        group = self.group
        query = _FREE_OF_LANES if group.ordering is not Ordering.NONE else _FREE
        packed = connection.execute(query, (group.id, self.session, self.now, limit)).fetchone()
        sequences, sizes = _numbers(packed[0]), _numbers(packed[1])
        count = _fitting(sizes, self.max_bytes)
        if not count:
            return 0
        listed = json.dumps(sequences[:count])
        connection.execute(_TAKE_FREE, (self.session, group.id, listed))
        deliveries, failures, firsts, marks = connection.execute(
            _COUNTS, (group.id, listed)
        ).fetchone()
        for delivery, delivered, failed, first, mark in zip(
            rows.read_listed(connection, group.topic_name, sequences[:count]),
            _numbers(deliveries),
            _numbers(failures),
            firsts.split(","),
            _numbers(marks),
            strict=True,
        ):
            delivery.deliveries = delivered
            delivery.failures = failed
            delivery.first_failure = float(first)
            delivery.suspect = mark > 0
            taken.append(delivery)
        return sum(sizes[:count])

    def _claim_fresh(
        self, connection: sqlite3.Connection, claimed: Claimed, position: int, used: int
    ) -> None:
        group, taken = self.group, claimed.deliveries
        limit = min(self.limit, MAX_CLAIM) - len(taken)
        count, size, last, delayed = connection.execute(
            _FRESH, (position, group.last, limit)
        ).fetchone()
        if not count:
            return
        if delayed or used + size > self.max_bytes or self._hindered(connection):
            last = self._sort_out(connection, taken, position, limit, used)
            if not taken and last > position:
                claimed.next_due = self.now  # there may be more behind what was set aside
        else:
            connection.execute(
                _TAKE_RANGE[group.ordering], (group.id, self.session, position, last)
            )
            kept = self.recent.take(position + 1, last) if last - position == count else None
            if kept is None:
                kept = rows.read_range(connection, group.topic_name, position + 1, last)
            taken += kept
        connection.execute(_ADVANCE, (last, group.id))

    def _hindered(self, connection: sqlite3.Connection) -> bool:
        """Whether anything could forbid taking fresh messages in turn."""
        if self.group.ordering is Ordering.NONE:
            return False
        query = (self.group.id, self.session)
        return bool(connection.execute(_HINDRANCE, query).fetchone()[0])

    def _sort_out(
        self,
        connection: sqlite3.Connection,
        taken: list[Delivery],
        position: int,
        limit: int,
        used: int,
    ) -> int:
        """Looks at fresh messages one by one: takes what may be taken, sets aside what has
        to wait, and tells how far it came."""
        group = self.group
        per_partition = group.ordering is Ordering.PER_PARTITION
        blocked = self._blocked(connection, position)
        chosen: list[int] = []
        aside: list[tuple[int, float, float]] = []
        for sequence, size, due, key in self._scan(connection, position):
            lane = group.lane(key)
            waits = due > self.now
            if lane in blocked or waits:
                if per_partition and lane in blocked:
                    break
                aside.append((sequence, BLOCKED if lane in blocked else due, due))
                if lane is not None:
                    blocked.add(lane)
            elif len(chosen) == limit or (used + size > self.max_bytes and (taken or chosen)):
                break
            else:
                chosen.append(sequence)
                used += size
            position = sequence
        if aside:
            query = _SET_ASIDE.format(LANE[group.ordering])
            connection.execute(query, (group.id, json.dumps(aside)))
        if chosen:
            listed = json.dumps(chosen)
            connection.execute(_TAKE_LISTED[group.ordering], (group.id, self.session, listed))
            taken += rows.read_listed(connection, group.topic_name, chosen)
        return position

    def _scan(
        self, connection: sqlite3.Connection, position: int
    ) -> Iterator[tuple[int, int, float, bytes]]:
        query = (position, self.group.last, SCAN)
        sequences, sizes, dues, keys, _ = connection.execute(_SCAN, query).fetchone()
        return zip(
            _numbers(sequences),
            _numbers(sizes),
            map(float, dues.split(",")),
            map(bytes.fromhex, keys.split(",")),
            strict=True,
        )

    def _blocked(self, connection: sqlite3.Connection, position: int) -> set[bytes | None]:
        """The lanes of which others hold something, or of which something waits."""
        group = self.group
        if group.ordering is Ordering.NONE:
            return set()
        if group.ordering is Ordering.PER_PARTITION:
            query = (group.id, self.session)
            return {b""} if connection.execute(_PARTITION_HELD, query).fetchone()[0] else set()
        (keys,) = connection.execute(
            _BLOCKED_KEYS, (group.id, self.session, position, group.last, SCAN)
        ).fetchone()
        return {bytes.fromhex(key) for key in keys.split(",")} if keys else set()

    def _next_due(self, connection: sqlite3.Connection) -> float | None:
        query = (self.group.id, self.now, BLOCKED)
        due: float | None = connection.execute(_NEXT_DUE, query).fetchone()[0]
        return due


def _numbers(packed: str | None) -> list[int]:
    return list(map(int, packed.split(","))) if packed else []


def _fitting(sizes: Sequence[int], max_bytes: int) -> int:
    """How many of the first are within the bound; one always is."""
    within = sum(1 for total in accumulate(sizes) if total <= max_bytes)
    return within or min(1, len(sizes))
