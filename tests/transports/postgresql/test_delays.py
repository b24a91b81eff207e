"""Delayed messages: many of them hold up nothing else, and are claimed bit by bit."""

from __future__ import annotations

from typing import cast
from zlib import crc32

import pytest
from protoflow.contract.spec import Ordering
from protoflow.message import Message
from protoflow.transports.postgresql import claiming
from protoflow.transports.postgresql.subscription import PostgresSubscription

from tests.transports.postgresql.harness import (
    MEGABYTE,
    TestSchema,
    acknowledge,
    join,
    numbers,
    publish,
    settings_of,
    take,
)

_HOUR = 3600.0


def delayed(count: int, key: bytes | None = None) -> list[Message]:
    """Messages for later."""
    return [
        Message(id=f"d{each}", topic="orders", payload=b"%d" % each, key=key, delay=_HOUR)
        for each in range(count)
    ]


async def test_one_claim_sets_aside_no_more_than_a_bound(
    place: TestSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that set aside everything would hold up the members beside it."""
    monkeypatch.setattr(claiming, "_MOST_ASIDE", 100)
    transport = await place.open()
    await transport.submit(delayed(700))
    subscription = await join(transport, settings_of())
    await cast("PostgresSubscription", subscription).holdings.fetch(10, MEGABYTE)
    found = (await place.run("SELECT count(*) FROM {s}.waiting"))[0][0]
    assert 100 <= found < 200
    await publish(transport, 1)
    assert numbers(await take(subscription, 1)) == [1]


async def test_a_delayed_message_is_not_there_to_be_claimed(place: TestSchema) -> None:
    """The watchdog would take a group for stalled that has not looked at it yet."""
    transport = await place.open()
    subscription = await join(transport, settings_of())
    await transport.submit(delayed(2))
    queue = cast("PostgresSubscription", subscription).holdings
    assert await queue.claimable() == 0
    assert (await transport.lag("orders", "billing")).messages == 2
    await publish(transport, 1)
    assert await queue.claimable() == 1


async def test_delayed_messages_leave_a_crowded_bucket(place: TestSchema) -> None:
    """More of them than a bucket remembers wait in it, and what comes behind is handled."""
    transport = await place.open()
    await transport.submit(delayed(2500, b"k1"))
    behind = [
        Message(id=f"b{each}", topic="orders", payload=b"%d" % each, key=key)
        for each, key in enumerate(_like(b"k1", 3))
    ]
    assert await transport.submit(behind) == [None] * 3
    subscription = await join(transport, settings_of(Ordering.PER_KEY))
    held = await take(subscription, 3)
    assert numbers(held) == [0, 1, 2]
    await acknowledge(subscription, held)
    assert (await transport.lag("orders", "billing")).messages == 2500
    await transport.close()
    rows = await place.run("SELECT done FROM {s}.progress WHERE done <> '{}'")
    assert all(len(row[0]) < 600 for row in rows)


def _like(key: bytes, count: int) -> list[bytes]:
    """Other keys in the same bucket."""
    found = (b"o%d" % each for each in range(10_000))
    same = (each for each in found if crc32(each) % 64 == crc32(key) % 64)
    return [next(same) for _ in range(count)]
