"""Dead letters are kept, listed, shown, replayed and purged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from protoflow import wire
from protoflow.contract.spec import Ordering
from protoflow.dead_letters import DeadLetterFilter, DeadLetterRecord, dead_letters_of
from protoflow.errors import DeadLetterNotFoundError, NotReplayableError, ReplayError
from protoflow.message import Message
from protoflow.testing.transports.harness import Member, TransportHarness, needs, numbers, payloads

NO_METADATA: Mapping[str, str] = {}


class DeadLetterTopic:
    """A topic with a group, and dead letters as the scheduler writes them."""

    def __init__(self, harness: TransportHarness) -> None:
        self.harness = harness
        self.topic = harness.topic()
        self.name = harness.dead_letter_topic(self.topic)
        self.dead_letters = dead_letters_of(harness.transport)

    def message(
        self, payload: bytes, *, key: bytes | None = b"k", metadata: Mapping[str, str] = NO_METADATA
    ) -> Message:
        """A dead letter; `metadata` adds to what every one has, or overrides it."""
        return self.harness.message(
            self.name,
            payload,
            key=key,
            metadata={
                wire.CE_TYPE: "shop.v1.OrderPlaced",
                wire.CORRELATION_ID: "c-1",
                wire.PF_DEAD_LETTER: "true",
                wire.PF_GROUP: self.harness.group(),
                wire.PF_ORIGINAL_TOPIC: self.topic,
                wire.PF_ATTEMPT: "5",
                wire.PF_ERROR_CLASS: "exhausted",
                wire.PF_ERROR_MESSAGE: "it broke",
                **metadata,
            },
        )

    async def fill(self, *messages: Message) -> list[str]:
        """Publishes dead letters one by one; returns their ids when all can be counted."""
        before = await self.dead_letters.count(self.name)
        for message in messages:
            await self.harness.publish(message)
        await self.counts(before + len(messages))
        return [message.id for message in messages]

    async def add(self, *payloads: bytes) -> list[str]:
        """Publishes a dead letter for each payload."""
        return await self.fill(*map(self.message, payloads))

    async def counts(self, expected: int) -> None:
        """So many are there, waiting for it."""
        async with asyncio.timeout(10 * self.harness.target.patience):
            while await self.dead_letters.count(self.name) != expected:
                await asyncio.sleep(0.05)

    async def ids(self, **selection: Any) -> list[str]:
        """The ids of a page."""
        return ids(await self.dead_letters.list(self.name, **selection))


def ids(records: Sequence[DeadLetterRecord]) -> list[str]:
    return [record.message.id for record in records]


@pytest.fixture
def dead(harness: TransportHarness) -> DeadLetterTopic:
    return DeadLetterTopic(harness)


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
        dead.message(
            b"0", metadata={wire.PF_ERROR_CLASS: "decode", wire.PF_ERROR_TYPE: "DecodeError"}
        ),
        dead.message(b"1", key=b"other", metadata={wire.PF_HANDLER: "shop.v1.Orders.Bill"}),
        dead.message(b"2", key=None, metadata={wire.CE_TYPE: "shop.v1.OrderPaid"}),
        dead.message(
            b"3", metadata={wire.PF_ERROR_CLASS: "decode", wire.PF_GROUP: harness.group("mailing")}
        ),
    )
    for selected, expected in (
        (DeadLetterFilter(), sent),
        (DeadLetterFilter(error_class="decode"), [sent[0], sent[3]]),
        (DeadLetterFilter(error_type="DecodeError"), [sent[0]]),
        (DeadLetterFilter(handler="shop.v1.Orders.Bill"), [sent[1]]),
        (DeadLetterFilter(message_type="shop.v1.OrderPaid"), [sent[2]]),
        (DeadLetterFilter(key="other"), [sent[1]]),
        (DeadLetterFilter(key=b"k"), [sent[0], sent[3]]),
        (DeadLetterFilter(group=harness.group("mailing"), error_class="decode"), [sent[3]]),
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
    await asyncio.sleep(1.1)  # some brokers count whole seconds
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
    letters = dead.dead_letters
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await letters.show(dead.name, "nobody")
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await letters.replay(dead.name, [known, "nobody"])
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await letters.purge(dead.name, [known, "nobody"])
    assert await letters.count(dead.name) == 1
    await member.nothing()


@needs("dead_letters")
async def test_a_replay_reaches_the_group_that_failed_and_no_other(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    failed = await harness.join(dead.topic)
    other = await harness.join(dead.topic, harness.group("mailing"))
    first, second = await dead.add(b"1", b"2")
    assert await dead.dead_letters.replay(dead.name, [second]) == 1
    (delivery,) = await failed.take(1, within=10)
    assert delivery.message.id == second
    assert delivery.message.topic == dead.topic
    assert delivery.message.payload == b"2"
    assert delivery.message.key == b"k"
    assert delivery.message.metadata[wire.CORRELATION_ID] == "c-1"
    assert wire.PF_ERROR_MESSAGE not in delivery.message.metadata
    assert delivery.failures == 0
    await failed.ack(delivery)
    await other.nothing()
    await dead.counts(1)
    assert await dead.ids() == [first]


@needs("dead_letters")
async def test_all_dead_letters_are_replayed(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    member = await harness.join(dead.topic)
    await dead.add(*numbers(0, 3))
    assert await dead.dead_letters.replay(dead.name) == 3
    batch = await member.take(3, within=10)
    assert sorted(payloads(batch)) == numbers(0, 3)
    await member.ack(*batch)
    await dead.counts(0)
    await member.nothing()


@needs("dead_letters")
async def test_dead_letters_that_match_are_replayed_and_purged(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    member = await harness.join(dead.topic)
    sent = await dead.fill(
        *(dead.message(b"%d" % n, metadata={wire.PF_ERROR_TYPE: "ABC"[n % 3]}) for n in range(6))
    )
    of_a, of_b = DeadLetterFilter(error_type="A"), DeadLetterFilter(error_type="B")
    assert await dead.dead_letters.replay(dead.name, filter=of_a) == 2
    batch = await member.take(2, within=10)
    assert sorted(payloads(batch)) == [b"0", b"3"]
    await member.ack(*batch)
    await dead.counts(4)
    assert await dead.dead_letters.purge(dead.name, filter=of_b) == 2
    await dead.counts(2)
    assert await dead.ids() == [sent[2], sent[5]]
    await member.nothing()


@needs("dead_letters", "per_key")
async def test_dead_letters_of_one_key_are_replayed_in_order(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    member = await harness.join(dead.topic, ordering=Ordering.PER_KEY)
    await dead.fill(*(dead.message(b"%d" % n, key=b"%d" % (n % 3)) for n in range(12)))
    assert await dead.dead_letters.replay(dead.name) == 12
    assert await _order_by_key(member, 12) == {
        b"%d" % key: [b"%d" % n for n in range(key, 12, 3)] for key in range(3)
    }
    await dead.counts(0)


async def _order_by_key(member: Member, count: int) -> dict[bytes | None, list[bytes]]:
    seen: dict[bytes | None, list[bytes]] = {}
    for _ in range(count):
        (delivery,) = await member.take(1, within=20)
        seen.setdefault(delivery.message.key, []).append(delivery.message.payload or b"")
        await member.ack(delivery)
    return seen


@needs("dead_letters")
async def test_one_that_cannot_be_replayed_is_reported_and_left(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    member = await harness.join(dead.topic)
    stranger = await harness.join(harness.topic("strangers"))
    sent = await dead.fill(
        dead.message(b"good 1"),
        dead.message(b"no origin", metadata={wire.PF_ORIGINAL_TOPIC: "", wire.PF_GROUP: ""}),
        dead.message(b"good 2"),
        dead.message(b"forged", metadata={wire.PF_ORIGINAL_TOPIC: harness.topic("strangers")}),
        dead.message(b"of another group", metadata={wire.PF_GROUP: "strangers"}),
        dead.message(b"good 3"),
    )
    with pytest.raises(ReplayError, match="3 replayed, 3 left") as caught:
        await dead.dead_letters.replay(dead.name)
    bad = {sent[1], sent[3], sent[4]}
    assert caught.value.replayed == 3
    assert caught.value.left.keys() == bad
    assert all(isinstance(error, NotReplayableError) for error in caught.value.left.values())
    assert all(id in str(caught.value) for id in bad)
    batch = await member.take(3, within=10)
    assert sorted(payloads(batch)) == [b"good 1", b"good 2", b"good 3"]
    await member.ack(*batch)
    assert {*await dead.ids()} == bad
    with pytest.raises(ReplayError, match="0 replayed, 1 left"):
        await dead.dead_letters.replay(dead.name, [sent[3]], to_origin=True)
    await stranger.nothing()
    await member.nothing()
    assert await dead.dead_letters.purge(dead.name, list(bad)) == 3
    await dead.counts(0)


@needs("dead_letters")
async def test_a_replay_to_the_origin_reaches_every_group(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    members = [
        await harness.join(dead.topic, group)
        for group in (harness.group(), harness.group("mailing"))
    ]
    (id,) = await dead.add(b"1")
    assert await dead.dead_letters.replay(dead.name, [id], to_origin=True) == 1
    for member in members:
        (delivery,) = await member.take(1, within=10)
        assert delivery.message.id == id
        await member.ack(delivery)
    await dead.counts(0)


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


@needs("dead_letters", "groups")
async def test_a_group_that_reads_the_dead_letters_leaves_them_where_they_are(
    harness: TransportHarness, dead: DeadLetterTopic
) -> None:
    await harness.join(dead.topic)
    reader = await harness.join(dead.name, "reader", dead_letter_topics=())
    (id,) = await dead.add(b"x")
    (delivery,) = await reader.take(1)
    assert delivery.message.id == id
    await reader.ack(delivery)
    await reader.nothing()
    await dead.counts(1)
    assert await dead.dead_letters.replay(dead.name) == 1
    await dead.counts(0)
