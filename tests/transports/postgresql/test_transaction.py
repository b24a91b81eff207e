"""Several settlements in one transaction of the application."""

from __future__ import annotations

import asyncio

import pytest
from protoflow.contract.spec import Ordering
from protoflow.message import Message, Settlement

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


async def test_transactions_that_wait_for_each_other_write_what_both_settled(
    place: TestSchema,
) -> None:
    """The second one is answered before the first one is noted."""
    transport = await place.open()
    member = await join(transport, settings_of())
    messages = [
        Message(id=f"m{number}", topic="orders", payload=b"%d" % number) for number in (0, 1)
    ]
    assert await transport.submit(messages) == [None, None]
    held = await take(member, 2)

    async def settle(number: int) -> None:
        async with transport.transaction() as transaction:
            await transaction.settle(Settlement(held[number]))
            await asyncio.sleep(0.2)

    await asyncio.gather(settle(0), settle(1))
    await transport.close()
    assert not await place.run("SELECT 1 FROM {s}.claims")
