"""A server that lost what it had last: what a member remembers of it is wrong."""

from __future__ import annotations

import asyncio

from protoflow.contract.spec import Ordering
from protoflow.transports.postgresql.subscription import PostgresSubscription

from tests.transports.postgresql.harness import (
    TestSchema,
    acknowledge,
    join,
    numbers,
    publish,
    settings_of,
    take,
)


async def test_a_member_of_a_server_that_ended_becomes_another_with_the_positions_of_the_tables(
    place: TestSchema,
) -> None:
    transport = await place.open()
    member = await join(transport, settings_of(Ordering.PER_KEY))
    assert isinstance(member, PostgresSubscription)
    await publish(transport, *range(5))
    held = await take(member, 5)
    first = member.membership.id
    member.membership.server = "another"  # as if it had joined before a restart
    # Its settlement would write a position that means nothing to this server.
    await acknowledge(member, held)
    async with asyncio.timeout(30):
        assert numbers(await take(member, 5)) == [0, 1, 2, 3, 4]
    assert member.membership.id != first
