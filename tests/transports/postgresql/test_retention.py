"""Old messages go with their partition, unless a group has something to do with them."""

from __future__ import annotations

import pytest
from protoflow.contract.spec import Ordering
from protoflow.transport import Topology, TopologyMode

from tests.transports.postgresql.harness import (
    TestSchema,
    acknowledge,
    join,
    publish,
    settings_of,
    take,
)

_YEAR = 365 * 86400.0


async def turn(place: TestSchema, keep: float = 6 * _YEAR) -> str:
    """Turns the ring as a process does."""
    ((done,),) = await place.run(f"SELECT {{s}}.rotate({keep})")
    return str(done)


async def age(place: TestSchema) -> None:
    """Everything is two years older."""
    await place.run(f"UPDATE {{s}}.meta SET opened = opened - {2 * _YEAR}")
    await place.run(f"UPDATE {{s}}.slots SET closed = closed - {2 * _YEAR}")


async def left(place: TestSchema) -> int:
    return int((await place.run("SELECT count(*) FROM {s}.log"))[0][0])


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_a_slot_is_emptied_when_it_is_old_and_all_groups_are_past_it(
    place: TestSchema, ordering: Ordering
) -> None:
    transport = await place.open()
    member = await join(transport, settings_of(ordering))
    await publish(transport, *range(20))
    assert await turn(place) == ""  # too young
    await age(place)
    assert await turn(place) == " turned"
    await publish(transport, 20)
    held = await take(member, 21)
    for _ in range(3):
        await age(place)
        await turn(place)
    assert await left(place) == 21, "a claimed message was removed"
    await acknowledge(member, held)
    for _ in range(3):
        await age(place)
        await turn(place)
    assert await left(place) == 0
    await publish(transport, 21)
    await acknowledge(member, await take(member, 1))


async def test_what_no_group_has_read_stays_and_the_ring_says_that_it_is_full(
    place: TestSchema,
) -> None:
    transport = await place.open()
    await transport.ensure(Topology(subscriptions=(settings_of(),)), TopologyMode.CREATE)
    turned = []
    for number in range(9):
        await publish(transport, number)
        await age(place)
        turned.append(await turn(place))
    assert turned[:7] == [" turned"] * 7
    assert turned[7:] == ["full", "full"]
    assert await left(place) == 9
    member = await join(transport, settings_of())
    await acknowledge(member, await take(member, 9))
    assert await turn(place) == "emptied turned"
