"""Several settlements in one transaction of the application."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import cast

import pytest
from protoflow.contract.spec import Ordering
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transports.postgresql.subscription import PostgresSubscription
from protoflow.transports.postgresql.transport import PostgresTransport

from tests.transports.postgresql.harness import TestSchema, join, numbers, settings_of, take


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_PARTITION])
async def test_each_that_was_settled_in_a_transaction_stays_so(
    place: TestSchema, ordering: Ordering
) -> None:
    """The second one does not write again what was there before the first."""
    transport = await place.open()
    member = await join(transport, settings_of(ordering))
    for number in range(3):
        only = Message(id=f"m{number}", topic="orders", payload=b"%d" % number, key=b"k")
        assert await transport.submit([only]) == [None]
    held = await take(member, 3)
    async with transport.transaction() as transaction:
        await transaction.settle(Settlement(held[0]), Settlement(held[1]))
    await transport.close()
    after = await join(await place.open(), settings_of(ordering))
    assert numbers(await take(after, 1)) == [2]


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_transactions_at_the_same_time_write_what_all_settled(
    place: TestSchema, ordering: Ordering
) -> None:
    """More of them than connections, of one bucket, beside settlements of the runtime."""
    transport = await place.open(connections=4)
    member = await join(transport, settings_of(ordering))
    messages = [
        Message(id=f"m{number}", topic="orders", payload=b"%d" % number, key=b"k")
        for number in range(12)
    ]
    assert await transport.submit(messages) == [None] * 12
    held = await take(member, 12)

    async def settle(number: int) -> None:
        async with transport.transaction() as transaction:
            await transaction.settle(Settlement(held[number]))
            await asyncio.sleep(0.02 * (number % 3))

    results = [member.settle([Settlement(held[number])]) for number in (0, 5, 10)]
    others = [number for number in range(12) if number not in (0, 5, 7, 10)]
    await asyncio.gather(*map(settle, others), *results)
    await transport.close()
    after = await join(await place.open(), settings_of(ordering))
    assert numbers(await take(after, 1)) == [7]
    assert await _lag(place) == 1


async def test_a_transaction_that_is_open_holds_up_no_settlement(place: TestSchema) -> None:
    transport = await place.open()
    member = await join(transport, settings_of(Ordering.PER_KEY))
    messages = [
        Message(id=f"m{number}", topic="orders", payload=b"%d" % number, key=b"k")
        for number in range(2)
    ]
    assert await transport.submit(messages) == [None, None]
    first, second = await take(member, 2)
    async with transport.transaction() as transaction:
        await transaction.settle(Settlement(first))
        async with asyncio.timeout(20):
            assert await member.settle([Settlement(second)]) == [SettleResult.DONE]
    await transport.close()
    assert await _lag(place) == 0


async def _lag(place: TestSchema) -> int:
    return (await (await place.open()).lag("orders", "billing")).messages


async def test_a_commit_that_was_not_answered_is_looked_up_before_the_next_is_written(
    place: TestSchema,
) -> None:
    """What it finished is not written again as unfinished."""
    transport = await place.open()
    member = cast(
        "PostgresSubscription", await join(transport, settings_of(Ordering.PER_PARTITION))
    )
    for number in range(3):
        only = Message(id=f"m{number}", topic="orders", payload=b"%d" % number, key=b"k")
        assert await transport.submit([only]) == [None]
    first, second, _ = await take(member, 3)
    with pytest.raises(ZeroDivisionError):
        await _settle_without_answer(transport, first)
    assert await member.settle([Settlement(second)]) == [SettleResult.DONE]
    assert await member.settle([Settlement(first)]) == [SettleResult.DONE]
    await transport.close()
    after = await join(await place.open(), settings_of(Ordering.PER_PARTITION))
    assert numbers(await take(after, 1)) == [2]


async def _settle_without_answer(transport: PostgresTransport, delivery: Delivery) -> None:
    """Settles in a transaction that is committed, and fails then."""
    async with transport.transaction() as transaction:
        await transaction.settle(Settlement(delivery))
        write = transaction.write

        async def written(turns: AsyncExitStack) -> None:
            await write(turns)
            await transaction.connection.execute("COMMIT")
            raise ZeroDivisionError

        transaction.write = written  # type: ignore[method-assign]  # stands for a lost answer
