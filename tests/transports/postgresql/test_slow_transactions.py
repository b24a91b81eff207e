"""Publishers whose transactions take their time, on a server that does nothing else."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from typing import Any

import asyncpg
import pytest
from protoflow.contract.spec import Ordering, Start
from protoflow.message import Delivery, Message
from protoflow.transports.postgresql.transport import PostgresTransport

from tests.transports.postgresql.harness import (
    MEGABYTE,
    TestSchema,
    acknowledge,
    join,
    messages,
    numbers,
    settings_of,
    take,
)


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_a_message_is_seen_that_a_poll_fell_before_the_commit_of(
    place: TestSchema, ordering: Ordering
) -> None:
    """Its number is taken, and its transaction runs above the snapshot of the poll."""
    transport = await place.open()
    member = await join(transport, settings_of(ordering))
    receiving = asyncio.create_task(take(member, 1))
    await asyncio.sleep(0.3)  # nothing is left to be read
    insertion = await transport.insertion(messages(1))
    async with place.admin.transaction():
        await place.admin.execute(insertion.statement, *insertion.rows[0])
        await asyncio.sleep(0.3)
    assert numbers(await receiving) == [1]


async def test_a_reader_that_follows_sees_it_too(place: TestSchema) -> None:
    transport = await place.open()
    insertion = await transport.insertion(messages(1))
    reader = transport.read_topic("orders", start=Start.LATEST, follow=True)
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0.3)
    async with place.admin.transaction():
        await place.admin.execute(insertion.statement, *insertion.rows[0])
        await asyncio.sleep(0.3)
    async with asyncio.timeout(30):
        assert (await first).message.id == "m1"


class Publishers:
    """Transactions of the application that publish at the same time, on connections of their own.

    Transactions with messages of one key follow one another. Some have their id long before they
    publish, some wait before they commit, some are rolled back.
    """

    def __init__(self, transport: PostgresTransport, seed: int) -> None:
        self.committed: dict[bytes, list[int]] = defaultdict(list)
        self._transport = transport
        self._random = random.Random(seed)
        self._locks: dict[bytes, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._number = 0

    async def run(self, connection: Any, transactions: int) -> None:
        choose = self._random
        for _ in range(transactions):
            key = b"k%d" % choose.randrange(6)
            async with self._locks[key]:
                await self._transaction(connection, key, choose.random() < 0.15)

    async def _transaction(self, connection: Any, key: bytes, rolled_back: bool) -> None:
        choose, sent = self._random, []
        transaction = connection.transaction()
        await transaction.start()
        if choose.random() < 0.5:
            await connection.execute("SELECT pg_current_xact_id()")
            await asyncio.sleep(choose.random() * 0.02)
        for _ in range(choose.randrange(1, 4)):
            self._number += 1
            sent.append(self._number)
            message = Message(id=str(self._number), topic="orders", key=key, payload=b"")
            insertion = await self._transport.insertion([message])
            await connection.execute(insertion.statement, *insertion.rows[0])
            await asyncio.sleep(choose.random() * 0.01)
        if rolled_back:
            await transaction.rollback()
        else:
            await transaction.commit()
            self.committed[key] += sent


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_whatever_transactions_publish_comes_once_and_in_turn(
    place: TestSchema, ordering: Ordering
) -> None:
    """Beside transactions that stay open all the time: one has an id early, one a number."""
    transport = await place.open()
    member = await join(transport, settings_of(ordering))
    publishers = Publishers(transport, 1)
    parsed = transport._database.arguments()
    connections = [await asyncpg.connect(**parsed) for _ in range(6)]
    taken: list[Delivery] = []

    async def consume() -> None:
        while True:
            found = await member.receive(50, MEGABYTE)
            taken.extend(found)
            await acknowledge(member, found)

    consuming = asyncio.create_task(consume())
    *writers, early, late = connections
    try:
        async with early.transaction(), late.transaction():
            await early.execute("SELECT pg_current_xact_id()")
            insertion = await transport.insertion(messages(1))
            await late.execute(insertion.statement, *insertion.rows[0])
            await asyncio.gather(*(publishers.run(each, 30) for each in writers))
            await early.execute(insertion.statement, *insertion.rows[0])
        expected = sum(map(len, publishers.committed.values())) + 2
        async with asyncio.timeout(60):
            while len(taken) < expected:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
    finally:
        consuming.cancel()
        for connection in connections:
            connection.terminate()
    assert sorted(each.message.id for each in taken if each.message.id == "m1") == ["m1"] * 2
    found = defaultdict(list)
    for each in taken:
        if each.message.id != "m1":
            found[each.message.key].append(int(each.message.id))
    if ordering is Ordering.NONE:
        found = defaultdict(list, {key: sorted(some) for key, some in found.items()})
    assert found == publishers.committed
