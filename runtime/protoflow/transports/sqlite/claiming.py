"""Claiming: a group's free rows first, and then messages beyond its position.

A group has a row for each message that it took and has not finished. The row is free (token 0) or
held by a session. Messages beyond the position of the group are fresh: they have no row yet.
Usually all of them may be taken as a range. If not, they are examined one by one. A message that
may not be taken yet is set aside: it gets a free row that is due later, or blocked.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import NamedTuple

from protoflow.contract.spec import Ordering
from protoflow.message import Delivery
from protoflow.transports.sqlite import claim_statements as sql
from protoflow.transports.sqlite import rows
from protoflow.transports.sqlite.recent import Recent
from protoflow.transports.sqlite.schema import BLOCKED
from protoflow.transports.sqlite.settling import give_back_unknown
from protoflow.transports.sqlite.topics import Group

#: The highest number of messages in one claim.
MAX_CLAIM = 1000
#: The highest number of fresh messages that one claim examines one by one.
SCAN = MAX_CLAIM


class Claimed(NamedTuple):
    """The result of a claim; if it is empty, the time when the next message is due."""

    deliveries: list[Delivery]
    next_due: float | None


@dataclass(slots=True)
class Claim:
    """One claim of a member of a group; runs in the thread, in a transaction.

    `known` lists the messages that the member holds, if this is uncertain because the last claim
    failed but may have been written. Other messages of the session are given back first.
    """

    group: Group
    session: int
    limit: int
    max_bytes: int
    now: float
    recent: Recent
    known: Collection[Hashable] | None = None
    _taken: list[Delivery] = field(init=False)
    _used: int = field(init=False)

    def run(self, connection: sqlite3.Connection) -> Claimed | None:
        """Claims messages; returns None if the session is lost."""
        self._taken, self._used = [], 0
        state = connection.execute(sql.STATE, (self.group.id, self.session)).fetchone()
        if state is None or state[1] is None:
            return None
        if self.known is not None:
            give_back_unknown(connection, self.group, self.session, self.known, self.now)
            state = connection.execute(sql.STATE, (self.group.id, self.session)).fetchone()
        position, _, free = state
        if free is not None and free <= self.now:
            self._claim_free(connection)
        if self._room > 0 and (not self._taken or self._used < self.max_bytes):
            moved = self._claim_fresh(connection, position)
            if moved and not self._taken:
                # there may be more messages behind those that were set aside
                return Claimed([], self.now)
        return Claimed(self._taken, None if self._taken else self._next_due(connection))

    @property
    def _room(self) -> int:
        return min(self.limit, MAX_CLAIM) - len(self._taken)

    def _claim_free(self, connection: sqlite3.Connection) -> None:
        group = self.group
        query = sql.FREE_OF_LANES if group.ordering is not Ordering.NONE else sql.FREE
        values = (group.id, self.session, self.now, self._room)
        sequences, sizes = map(_numbers, connection.execute(query, values).fetchone())
        count = _fitting(sizes, self.max_bytes)
        if not count:
            return
        listed = json.dumps(sequences[:count])
        connection.execute(sql.TAKE_FREE, (self.session, group.id, listed))
        counts = connection.execute(sql.COUNTS, (group.id, listed)).fetchone()
        self._taken = rows.read_listed(connection, group.topic_name, sequences[:count])
        self._used = sum(sizes[:count])
        packed = zip(*(each.split(",") for each in counts), strict=True)
        for delivery, (deliveries, failures, first, mark) in zip(self._taken, packed, strict=True):
            delivery.deliveries = int(deliveries)
            delivery.failures = int(failures)
            delivery.first_failure = float(first)
            delivery.suspect = int(mark) > 0

    def _claim_fresh(self, connection: sqlite3.Connection, position: int) -> bool:
        """Claims fresh messages; returns whether the position of the group moved."""
        group = self.group
        query = (position, group.last, self._room)
        count, size, last, delayed = connection.execute(sql.FRESH, query).fetchone()
        if not count:
            return False
        if delayed or self._used + size > self.max_bytes or self._hindered(connection):
            last = self._sort_out(connection, position)
        else:
            values = (group.id, self.session, position, last)
            connection.execute(sql.TAKE_RANGE[group.ordering], values)
            kept = self.recent.take(position + 1, last) if last - position == count else None
            if kept is None:
                kept = rows.read_range(connection, group.topic_name, position + 1, last)
            self._taken += kept
        connection.execute(sql.ADVANCE, (last, group.id))
        return bool(last > position)

    def _hindered(self, connection: sqlite3.Connection) -> bool:
        """Whether a row may prevent taking fresh messages in order."""
        if self.group.ordering is Ordering.NONE:
            return False
        query = (self.group.id, self.session)
        return bool(connection.execute(sql.HINDRANCE, query).fetchone()[0])

    def _sort_out(self, connection: sqlite3.Connection, position: int) -> int:
        """Examines fresh messages one by one: takes available ones, sets waiting ones aside, and
        returns the position reached."""
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
            elif len(chosen) == self._room or (
                self._used + size > self.max_bytes and (self._taken or chosen)
            ):
                break
            else:
                chosen.append(sequence)
                self._used += size
            position = sequence
        if aside:
            query = sql.SET_ASIDE.format(sql.LANE[group.ordering])
            connection.execute(query, (group.id, json.dumps(aside)))
        if chosen:
            listed = json.dumps(chosen)
            connection.execute(sql.TAKE_LISTED[group.ordering], (group.id, self.session, listed))
            self._taken += rows.read_listed(connection, group.topic_name, chosen)
        return position

    def _scan(
        self, connection: sqlite3.Connection, position: int
    ) -> Iterator[tuple[int, int, float, bytes]]:
        query = (position, self.group.last, SCAN)
        sequences, sizes, dues, keys, _ = connection.execute(sql.LOOK, query).fetchone()
        return zip(
            _numbers(sequences),
            _numbers(sizes),
            map(float, dues.split(",")),
            map(bytes.fromhex, keys.split(",")),
            strict=True,
        )

    def _blocked(self, connection: sqlite3.Connection, position: int) -> set[bytes | None]:
        """Returns the lanes in which others hold messages, or in which messages wait."""
        group = self.group
        if group.ordering is Ordering.NONE:
            return set()
        if group.ordering is Ordering.PER_PARTITION:
            query = (group.id, self.session)
            return {b""} if connection.execute(sql.PARTITION_HELD, query).fetchone()[0] else set()
        (keys,) = connection.execute(
            sql.BLOCKED_KEYS, (group.id, self.session, position, group.last, SCAN)
        ).fetchone()
        return {bytes.fromhex(key) for key in keys.split(",")} if keys else set()

    def _next_due(self, connection: sqlite3.Connection) -> float | None:
        query = (self.group.id, self.now, BLOCKED)
        due: float | None = connection.execute(sql.NEXT_DUE, query).fetchone()[0]
        return due


def _numbers(packed: str | None) -> list[int]:
    return list(map(int, packed.split(","))) if packed else []


def _fitting(sizes: Sequence[int], max_bytes: int) -> int:
    """Returns how many of the first messages are within the limit; at least one."""
    within = sum(1 for total in accumulate(sizes) if total <= max_bytes)
    return within or min(1, len(sizes))


def claimable(connection: sqlite3.Connection, group: Group, session: int, now: float) -> int:
    """Returns how much a member could claim now; the count has a limit."""
    values = (group.id, session, now, MAX_CLAIM, group.last)
    due = sql.DUE if group.ordering is Ordering.NONE else sql.DUE_OF_LANES
    (free,) = connection.execute(due, values[:4]).fetchone()
    (beyond,) = connection.execute(sql.FREE_BEYOND[group.ordering], values).fetchone()
    return int(free + beyond)
