"""Several settlements in one transaction of the application."""

from __future__ import annotations

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
