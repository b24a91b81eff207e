"""Positions that the transactions of the server have not reached, though it is the same one."""

from __future__ import annotations

import asyncio

import pytest
from protoflow.contract.spec import Ordering
from protoflow.testing import Listener
from protoflow.transport import Topology, TopologyMode

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

_FUTURE = (1 << 40) + 1000
_SHIFT = f"""
UPDATE {{s}}.TABLE SET
  base = ('{_FUTURE}:{_FUTURE}:')::pg_snapshot, open = ('{_FUTURE}:{_FUTURE}:')::pg_snapshot
"""


async def count_anew(place: TestSchema) -> None:
    """What `pg_resetwal` leaves: all transactions lie in the future."""
    await place.run(f"UPDATE {{s}}.log SET xid = '{_FUTURE - 1}'")
    for table in ("cursors", "progress"):
        await place.run(_SHIFT.replace("TABLE", table))


async def consumed(place: TestSchema, ordering: Ordering) -> None:
    """Five messages are handled, and then the database is another."""
    transport = await place.open()
    member = await join(transport, settings_of(ordering))
    await publish(transport, *range(5))
    await acknowledge(member, await take(member, 5))
    await transport.close()
    await count_anew(place)


ORDERINGS = pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])


async def replaced(place: TestSchema) -> None:
    """Waits until the group has a position of this server."""
    async with asyncio.timeout(30):
        while not (await place.run("SELECT shift FROM {s}.meta"))[0][0]:
            await asyncio.sleep(0.02)


@ORDERINGS
async def test_everything_comes_again_if_the_operator_said_earliest(
    place: TestSchema, ordering: Ordering
) -> None:
    await consumed(place, ordering)
    transport = await place.open(settings={"on_lost_position": "earliest"})
    await publish(transport, 5)
    member = await join(transport, settings_of(ordering))
    held = await take(member, 6)
    assert numbers(held) == [0, 1, 2, 3, 4, 5]
    await acknowledge(member, held)


@ORDERINGS
async def test_only_what_is_new_comes_if_the_operator_said_latest(
    place: TestSchema, ordering: Ordering
) -> None:
    await consumed(place, ordering)
    transport = await place.open(settings={"on_lost_position": "latest"})
    await publish(transport, 5)
    member = await join(transport, settings_of(ordering))
    taking = asyncio.ensure_future(take(member, 1))
    await replaced(place)
    await publish(transport, 6)
    assert numbers(await taking) == [6]


@ORDERINGS
async def test_else_the_subscription_says_what_to_do_and_takes_nothing(
    place: TestSchema, ordering: Ordering
) -> None:
    await consumed(place, ordering)
    transport = await place.open()
    settings, listener = settings_of(ordering), Listener()
    await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
    member = await transport.subscribe(settings, listener)
    await publish(transport, 5)
    receiving = asyncio.ensure_future(member.receive(10, MEGABYTE))
    async with asyncio.timeout(30):
        while not any("on_lost_position" in str(each) for each in listener.health):
            await asyncio.sleep(0.02)
    assert not receiving.done()
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
