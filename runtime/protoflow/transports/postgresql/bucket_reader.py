"""Reading on in the buckets that a member owns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

from protoflow.message import Delivery
from protoflow.transports.postgresql import positions
from protoflow.transports.postgresql.bucket import Bucket
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.holdings import InBucket
from protoflow.transports.postgresql.lost_position import PositionLostError
from protoflow.transports.postgresql.members import Membership
from protoflow.transports.postgresql.ownership import Known
from protoflow.transports.postgresql.rows import read_delivery

#: So many messages of a bucket may be unfinished, or finished behind unfinished ones.
_WINDOW = 2000
#: The highest number of messages that one read keeps back, and the size of its pages then.
_SCAN, _PAGE = 2000, 128


class BucketReader:
    """Reads messages, and keeps back those that must wait for others.

    Args:
        known: what is known of single messages.
        turns: gives each delivery a number of its own.
        lane: what a delivery must be handled in turn with; None: nothing.
        wake_at: called for a bucket in which a message waits.
    """

    def __init__(
        self,
        database: Database,
        membership: Membership,
        known: Mapping[int, Known],
        turns: Iterator[int],
        lane: Callable[[Delivery], Hashable],
        wake_at: Callable[[Bucket], None],
    ) -> None:
        self._database = database
        self._membership = membership
        self._known = known
        self._turns = turns
        self._lane = lane
        self._wake_at = wake_at
        self._loop = asyncio.get_running_loop()

    async def open(self, buckets: Sequence[Bucket]) -> bool:
        """Opens the next batch of exhausted buckets, if there may be something in it."""
        behind = [each for each in buckets if each.exhausted]
        looks = {each.seen for each in behind}
        if not looks:
            return False
        # Batches that were opened at different times are opened together, to be looked at as one.
        if len(looks) == 1 and (seen := looks.pop()) is not None:
            numbers, topic = [each.number for each in behind], self._membership.group.topic
            seen = await positions.look_again(self._database, topic, numbers, seen)
            if seen is not None:
                for bucket in behind:
                    bucket.seen = seen
                return False
        opening = await positions.open_batch(self._database)
        self._membership.check_server(opening.server)
        if any(positions.is_ahead(each.position, opening.open) for each in behind):
            raise PositionLostError("a position is ahead of the server")
        for bucket in behind:
            bucket.open(opening)
        return True

    async def read(
        self, buckets: Sequence[Bucket], found: list[Delivery], max_messages: int, max_bytes: int
    ) -> bool:
        """Reads up to `max_messages` and `max_bytes` into `found`. Returns whether there may be
        more, because many messages were kept back."""
        hungry, scan, page = _hungry(buckets), _SCAN, 1
        while hungry and len(found) < max_messages and max_bytes > 0 and scan > 0:
            most = max(page, -(-(max_messages - len(found)) // len(hungry)))
            places = [bucket.position for bucket in hungry]
            rows = await self._database.fetch(
                positions.READ,
                self._membership.group.topic,
                [bucket.number for bucket in hungry],
                [place.base for place in places],
                [place.open for place in places],
                [place.low for place in places],
                [place.high for place in places],
                [place.seq for place in places],
                most,
            )
            numbered = {bucket.number: bucket for bucket in hungry}
            kept_back = len(rows) + len(found)
            counts: dict[int, int] = {}
            for row in rows:
                counts[row[0]] = counts.get(row[0], 0) + 1
                max_bytes -= self._keep(numbered[row[0]], row, found, max_messages)
            kept_back -= len(found)
            scan -= kept_back
            if 2 * kept_back > len(rows):
                page = min(2 * page, _PAGE)
            for bucket in hungry:
                if counts.get(bucket.number, 0) < most and not bucket.leaving:
                    bucket.exhaust()
            hungry = _hungry(hungry)
        return scan <= 0

    def _keep(
        self, bucket: Bucket, row: Sequence[Any], found: list[Delivery], max_messages: int
    ) -> int:
        """Takes a row that was read; returns how many bytes of it are handed out."""
        number, seq, wait, *content = row
        if bucket.lost or bucket.leaving:
            return 0
        due = 0.0
        if bucket.read(seq):
            delivery = read_delivery(
                self._membership.group.topic_name,
                number,
                seq,
                content,
                receipt=InBucket(number, seq, next(self._turns)),
                deliveries=bucket.crashes + 1,
            )
            if wait > 0:
                due = self._loop.time() + wait
            if seq in self._known:
                delivery.failures, delivery.first_failure, due, marks = self._known[seq]
                delivery.suspect = marks > 0
        elif seq in bucket.ahead:
            delivery = bucket.ahead.pop(seq)
        else:
            return 0
        lane = self._lane(delivery)
        is_full = len(found) >= max_messages
        if due > self._loop.time() or is_full or bucket.is_blocked(lane, seq):
            bucket.give_back(delivery, lane, due)
            self._wake_at(bucket)
            return 0
        found.append(delivery)
        return delivery.size


def _hungry(buckets: Sequence[Bucket]) -> list[Bucket]:
    """Those to read on from. A bucket that was lost, or leaves, takes no rows: reading it would
    never end."""
    return [
        each
        for each in buckets
        if not (each.lost or each.leaving or each.exhausted) and each.window < _WINDOW
    ]
