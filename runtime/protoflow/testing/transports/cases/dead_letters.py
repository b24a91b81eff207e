"""Dead letters are stored, counted, listed, shown and purged."""

from __future__ import annotations

import asyncio

import pytest

from protoflow import wire
from protoflow.dead_letters import DeadLetterFilter, dead_letters_of
from protoflow.errors import DeadLetterNotFoundError
from protoflow.testing.transports.dead_letter_topic import DeadLetterTopic, ids
from protoflow.testing.transports.harness import TransportHarness, needs, numbers


@needs("dead_letters")
async def test_dead_letters_are_counted_listed_and_shown(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    await harness.join(dead.topic)
    assert await dead.dead_letters.count(dead.name) == 0
    assert await dead.ids() == []
    first, second, third = await dead.add(*numbers(0, 3))
    found = await dead.dead_letters.list(dead.name)
    assert ids(found) == [first, second, third]
    assert [record.message.payload for record in found] == numbers(0, 3)
    assert await dead.ids(limit=2) == [first, second]
    record = await dead.dead_letters.show(dead.name, second)
    assert record.message.payload == b"1"
    assert record.message.key == b"k"
    assert record.message.metadata[wire.PF_ERROR_MESSAGE] == "it broke"
    assert await dead.dead_letters.count(dead.name) == 3, "reading takes none"


@needs("dead_letters")
async def test_dead_letters_are_listed_in_pages(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    await harness.join(dead.topic)
    sent = await dead.add(*numbers(0, 5))
    after, seen = "", list[str]()
    while page := await dead.dead_letters.list(dead.name, limit=2, after=after):
        after = page[-1].position
        seen += ids(page)
    assert seen == sent
    assert await dead.ids(after=after) == []
    await dead.add(b"later")
    assert len(await dead.ids(after=after)) == 1
    with pytest.raises(ValueError, match="position"):
        await dead.ids(after="nowhere")


@needs("dead_letters")
async def test_dead_letters_are_filtered(harness: TransportHarness, dead: DeadLetterTopic) -> None:
    await harness.join(dead.topic)
    sent = await dead.fill(
        dead.message(b"0", {wire.PF_ERROR_CLASS: "decode", wire.PF_ERROR_TYPE: "DecodeError"}),
        dead.message(b"1", {wire.PF_HANDLER: "shop.v1.Orders.Bill"}, key=b"other"),
        dead.message(b"2", {wire.CE_TYPE: "shop.v1.OrderPaid"}, key=None),
        dead.message(b"3", {wire.PF_ERROR_CLASS: "decode", wire.PF_GROUP: "mailing"}),
    )
    for selected, expected in (
        (DeadLetterFilter(), sent),
        (DeadLetterFilter(error_class="decode"), [sent[0], sent[3]]),
        (DeadLetterFilter(error_type="DecodeError"), [sent[0]]),
        (DeadLetterFilter(handler="shop.v1.Orders.Bill"), [sent[1]]),
        (DeadLetterFilter(message_type="shop.v1.OrderPaid"), [sent[2]]),
        (DeadLetterFilter(key="other"), [sent[1]]),
        (DeadLetterFilter(key=b"k"), [sent[0], sent[3]]),
        (DeadLetterFilter(group="mailing", error_class="decode"), [sent[3]]),
        (DeadLetterFilter(error_class="other"), []),
    ):
        assert await dead.ids(filter=selected) == expected, selected
    pages = await dead.dead_letters.list(
        dead.name, limit=1, filter=DeadLetterFilter(error_class="decode")
    )
    rest = await dead.ids(after=pages[0].position, filter=DeadLetterFilter(error_class="decode"))
    assert (ids(pages), rest) == ([sent[0]], [sent[3]])


@needs("dead_letters")
async def test_dead_letters_are_filtered_by_time(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    await harness.join(dead.topic)
    await dead.add(b"0")
    await asyncio.sleep(1.1)  # some brokers only store whole seconds
    await dead.add(b"1")
    first, second = await dead.dead_letters.list(dead.name)
    assert 0 < first.time < second.time
    middle = (first.time + second.time) / 2
    assert await dead.ids(filter=DeadLetterFilter(until=middle)) == ids([first])
    assert await dead.ids(filter=DeadLetterFilter(since=middle)) == ids([second])
    assert await dead.ids(filter=DeadLetterFilter(since=first.time, until=second.time)) == ids(
        [first]
    )


@needs("dead_letters")
async def test_an_unknown_id_is_an_error(harness: TransportHarness, dead: DeadLetterTopic) -> None:
    member = await harness.join(dead.topic)
    (known,) = await dead.add(b"x")
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await dead.dead_letters.show(dead.name, "nobody")
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await dead.dead_letters.replay(dead.name, [known, "nobody"])
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await dead.dead_letters.purge(dead.name, [known, "nobody"])
    assert await dead.dead_letters.count(dead.name) == 1
    await member.nothing()


@needs("dead_letters")
async def test_dead_letters_are_purged(harness: TransportHarness, dead: DeadLetterTopic) -> None:
    member = await harness.join(dead.topic)
    first, *_ = await dead.add(*numbers(0, 4))
    assert await dead.dead_letters.purge(dead.name, [first]) == 1
    await dead.counts(3)
    with pytest.raises(DeadLetterNotFoundError):
        await dead.dead_letters.show(dead.name, first)
    assert await dead.dead_letters.purge(dead.name) == 3
    await dead.counts(0)
    await member.nothing()


@needs("dead_letters", "durable")
async def test_dead_letters_survive_a_restart(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    await harness.join(dead.topic)
    sent = await dead.add(b"x")
    await harness.reopen()
    assert ids(await dead_letters_of(harness.transport).list(dead.name)) == sent
