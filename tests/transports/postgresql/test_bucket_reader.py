"""Reading on in buckets, and who owns them, over a database that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Hashable
from contextlib import asynccontextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from protoflow.contract.spec import Ordering
from protoflow.errors import TransportError
from protoflow.message import Delivery, Message
from protoflow.transports.postgresql import ownership
from protoflow.transports.postgresql.bucket import Bucket
from protoflow.transports.postgresql.bucket_reader import BucketReader
from protoflow.transports.postgresql.positions import START, Opening, Position, Seen, look_again
from protoflow.transports.postgresql.schema import BUCKETS


async def test_a_bucket_that_is_lost_while_it_is_read_ends_the_read() -> None:
    """Its rows are taken by nobody, so they would be found again and again."""
    bucket = Bucket(3, Position("0", "", 0, 100, 0, 0), (), 0)

    class Rows:
        async def fetch(self, *_: Any) -> list[tuple[object, ...]]:
            await asyncio.sleep(0)
            bucket.lost = True
            return [(3, 1, 0.0, None, "{}", b"", 0.0)]

    found: list[Delivery] = []
    async with asyncio.timeout(5):
        await _reader(Rows()).read([bucket], found, 1, 1000)
    assert not found


async def test_a_number_that_a_running_transaction_may_have_taken_is_looked_at_again() -> None:
    """Such a transaction runs above the snapshot, which names it nowhere."""
    answers = iter([(False, "9:9:"), (False, "9:9:"), (True, "10:10:")])
    asked: list[tuple[object, ...]] = []

    class Log:
        async def fetch(self, _query: str, *values: Any) -> list[tuple[object, ...]]:
            asked.append(values)
            return [next(answers)]

    log = cast("Any", Log())
    seen: Seen | None = Seen(5, "8:8:")
    for _ in range(3):
        assert seen is not None
        seen = await look_again(log, 1, [3], seen)
    assert seen is None
    assert [values[2] for values in asked] == [5, 5, 5]


async def test_buckets_opened_at_different_times_are_opened_together() -> None:
    """Else each would be looked at by a statement of its own, at every poll."""
    buckets = [Bucket(number, START, (), 0) for number in range(3)]
    for number, bucket in enumerate(buckets):
        bucket.open(Opening(f"{number + 3}:{number + 3}:", number, number))
        bucket.exhaust()
    database = SimpleNamespace(fetch=AsyncMock(side_effect=[[(9, "1", "off")], [("7:7:", 9, "")]]))
    reader = _reader(database)
    assert await reader.open(buckets)
    assert {bucket.seen for bucket in buckets} == {Seen(9, "7:7:")}


async def test_a_bucket_that_leaves_is_read_no_further_and_skips_nothing() -> None:
    bucket = Bucket(3, Position("0", "", 0, 100, 0, 0), (), 0)

    class Rows:
        async def fetch(self, *_: Any) -> list[tuple[object, ...]]:
            bucket.leaving = True
            return [(3, 1, 0.0, None, "{}", b"", 0.0)]

    found: list[Delivery] = []
    async with asyncio.timeout(5):
        await _reader(Rows()).read([bucket], found, 10, 1000)
    assert not found
    assert not bucket.exhausted
    assert bucket.position.seq == 0


@pytest.mark.parametrize("early", [True, False])
async def test_a_moved_message_comes_at_its_place_and_holds_up_its_key_from_there(
    early: bool,
) -> None:
    """The place may lie in a later batch, if a slow transaction published the message. A bucket
    full of messages that wait for it would never be read up to there."""
    bucket = Bucket(3, Position("0", "", 0, 100, 0, 0), (5,), 0)
    bucket.aside[b"k"] = [5]

    def claim() -> None:
        bucket.take_up(b"k", 5)
        moved = Message(id="m", topic="t", key=b"k", payload=b"")
        bucket.give_back(Delivery(message=moved, position=5), b"k")

    def handed_out() -> list[object]:
        return [each.position for each in (*found, *bucket.take_returned(0.0, 10))]

    if early:
        claim()
    batches = [[(3, seq, 0.0, b"k", "{}", b"", 0.0) for seq in seqs] for seqs in ([7], [5, 8])]
    database = SimpleNamespace(fetch=AsyncMock(side_effect=batches))
    reader = _reader(database, lambda delivery: delivery.message.key)
    found: list[Delivery] = []
    await reader.read([bucket], found, 10, 1000)
    assert handed_out() == [7]
    bucket.open(Opening("9:9:", 9, 9))
    found.clear()
    await reader.read([bucket], found, 10, 1000)
    if not early:
        assert handed_out() == []
        claim()
    assert handed_out() == [5, 8]


class _Owners:
    """The rows of one member, and a server that may fail on handing over."""

    def __init__(self) -> None:
        self.members = 1
        self.owned: set[int] = set()
        self.fails = False

    def sql(self, query: str) -> str:
        return query

    @asynccontextmanager
    async def transaction(self, **_: Any) -> AsyncIterator[_Owners]:
        if self.fails:
            raise TransportError("the server is away")
        yield self

    async def execute(self, query: str, *values: Any) -> None:
        if query is ownership._TAKE:
            free = [each for each in range(BUCKETS) if each not in self.owned]
            self.owned.update(free[: values[2]])
        elif query is ownership._LEAVE:
            self.owned.difference_update(values[1])

    async def fetch(self, query: str, *values: Any) -> list[tuple[object, ...]]:
        if query is ownership._MEMBERS:
            return [(self.members, len(self.owned))]
        if query is ownership._HELD:
            return [(number, 0) for number in self.owned]
        if query is ownership._PROGRESS:
            return [(number, *START, ()) for number in values[1]]
        return []


async def test_buckets_whose_handing_over_failed_are_not_stranded() -> None:
    """They are this member's by the tables, so nobody else can take them."""
    owners = _Owners()
    group = SimpleNamespace(id=1, topic=1, topic_name="t", ordering=Ordering.PER_KEY)

    @asynccontextmanager
    async def claiming() -> AsyncIterator[tuple[_Owners, str]]:
        yield owners, "1"

    async def revoke(_: Collection[int]) -> None:
        pass

    member = cast("Any", SimpleNamespace(id=7, group=group, claiming=claiming))
    mine = ownership.Ownership(cast("Any", owners), member, lambda: None, revoke)
    await mine._balance()
    assert len(mine.buckets) == BUCKETS
    owners.members, owners.fails = 2, True
    with pytest.raises(TransportError):
        await mine._balance()
    owners.fails = False
    await mine._balance()
    await mine._balance()
    assert mine.buckets.keys() == owners.owned
    assert len(owners.owned) == BUCKETS // 2


def _reader(
    database: object, lane: Callable[[Delivery], Hashable] = lambda _: None
) -> BucketReader:
    member = SimpleNamespace(
        group=SimpleNamespace(topic=1, topic_name="t"), check_server=lambda _started: None
    )
    return BucketReader(
        cast("Any", database),
        cast("Any", member),
        {},
        count(),
        lane,
        lambda _: None,
    )
