"""Publishers whose transactions take their time, on a server that does nothing else."""

from __future__ import annotations

import asyncio

import pytest
from protoflow.contract.spec import Ordering, Start

from tests.transports.postgresql.harness import (
    TestSchema,
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
    receiving = asyncio.create_task(take(member, 1, 5.0))
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
    async with asyncio.timeout(5.0):
        assert (await first).message.id == "m1"
