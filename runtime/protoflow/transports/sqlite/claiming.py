"""Claiming: a group's free rows first, then what lies beyond its position.

A group has a row for each message that it took and has not finished, and that is free (token 0)
or held by a session. Messages beyond the position of the group are fresh: they have no row yet.
Usually all of them may be taken, as a range. If not, they are looked at one by one: what may not be
taken yet is set aside, which is to get a free row that is due later, or blocked.
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

#: How many messages one claim takes at most.
MAX_CLAIM = 1000
#: How many fresh messages are looked at one by one in one claim.
SCAN = MAX_CLAIM


class Claimed(NamedTuple):
    """What a claim gave; if nothing, when the next waiting message is due."""

    deliveries: list[Delivery]
    next_due: float | None


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
    _taken: list[Delivery] = field(init=False)
    _used: int = field(init=False)

    def run(self, connection: sqlite3.Connection) -> Claimed | None:
        """Takes what may be taken; None if the session is lost."""
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
                return Claimed([], self.now)  # there may be more behind what was set aside
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
        """Whether the position of the group moved."""
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
        """Whether anything could forbid taking fresh messages in turn."""
        if self.group.ordering is Ordering.NONE:
            return False
        query = (self.group.id, self.session)
        return bool(connection.execute(sql.HINDRANCE, query).fetchone()[0])

    def _sort_out(self, connection: sqlite3.Connection, position: int) -> int:
        """Looks at fresh messages one by one: takes what may be taken, sets aside what has
        to wait, and returns how far it came."""
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
        """The lanes of which others hold something, or of which something waits."""
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
    """How many of the first are within the bound; one always is."""
    within = sum(1 for total in accumulate(sizes) if total <= max_bytes)
    return within or min(1, len(sizes))


def claimable(connection: sqlite3.Connection, group: Group, session: int, now: float) -> int:
    """How much a member could claim now; it is not counted to the end."""
    values = (group.id, session, now, MAX_CLAIM, group.last)
    due = sql.DUE if group.ordering is Ordering.NONE else sql.DUE_OF_LANES
    (free,) = connection.execute(due, values[:4]).fetchone()
    (beyond,) = connection.execute(sql.FREE_BEYOND[group.ordering], values).fetchone()
    return int(free + beyond)
