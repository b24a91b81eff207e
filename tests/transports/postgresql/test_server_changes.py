"""A server that lost what it had last: what a member remembers of it is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from protoflow.contract.spec import Ordering
from protoflow.transports.postgresql import ownership
from protoflow.transports.postgresql.buckets import Buckets
from protoflow.transports.postgresql.subscription import PostgresSubscription

from tests.acceptance.sessions import end_postgresql
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


async def test_a_member_that_joins_again_while_it_looks_for_buckets_takes_them_for_itself(
    place: TestSchema, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = await place.open()
    member = await join(transport, settings_of(Ordering.PER_KEY))
    assert isinstance(member, PostgresSubscription)
    assert isinstance(member.holdings, Buckets)
    owner, first, fetch = (
        member.holdings._ownership,
        member.membership.id,
        transport._database.fetch,
    )

    async def join_again(query: str, *values: object) -> list[Any]:
        rows = await fetch(query, *values)
        if query == ownership._MEMBERS and member.membership.id == first:
            await end_postgresql(member)
            await member._rejoin(first)
        return rows

    monkeypatch.setattr(transport._database, "fetch", join_again)
    await owner._balance()
    assert member.membership.id != first
    await publish(transport, *range(5))
    assert numbers(await take(member, 5)) == [0, 1, 2, 3, 4]
