"""Dead letters are kept, shown, replayed and purged."""

from __future__ import annotations

import asyncio

import pytest
from protoflow import wire
from protoflow.errors import DeadLetterNotFoundError
from protoflow.message import Message
from protoflow.transport import DeadLetters

from tests.acceptance.bench import Bench, numbers, payloads

needs = pytest.mark.needs


class Graveyard:
    """A topic with a group, and letters as the scheduler writes them."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.topic = bench.topic()
        self.dead = f"{self.topic}..billing..dead"
        assert isinstance(bench.transport, DeadLetters)
        self.letters: DeadLetters = bench.transport

    async def bury(self, *payloads: bytes, group: str = "billing") -> list[Message]:
        messages = [
            self.bench.message(
                self.dead,
                payload,
                key=b"k",
                metadata={
                    "ce_type": "shop.v1.OrderPlaced",
                    "correlation_id": "c-1",
                    wire.PF_GROUP: group,
                    wire.PF_ORIGINAL_TOPIC: self.topic,
                    wire.PF_ATTEMPT: "5",
                    wire.PF_ERROR_MESSAGE: "it broke",
                },
            )
            for payload in payloads
        ]
        for message in messages:
            await self.bench.publish(message)
        await self.count(len(messages), least=True)
        return messages

    async def count(self, expected: int, *, least: bool = False) -> None:
        async with asyncio.timeout(10 * self.bench.target.patience):
            while (found := await self.letters.count_dead_letters(self.dead)) != expected:
                if least and found > expected:
                    break
                await asyncio.sleep(0.05)


@needs("dead_letters")
async def test_letters_are_counted_listed_and_shown(bench: Bench) -> None:
    graveyard = Graveyard(bench)
    await bench.join(graveyard.topic)
    assert await graveyard.letters.count_dead_letters(graveyard.dead) == 0
    assert list(await graveyard.letters.list_dead_letters(graveyard.dead)) == []
    first, second, third = await graveyard.bury(*numbers(0, 3))
    found = await graveyard.letters.list_dead_letters(graveyard.dead)
    assert [letter.message.id for letter in found] == [first.id, second.id, third.id]
    assert [letter.message.payload for letter in found] == numbers(0, 3)
    few = await graveyard.letters.list_dead_letters(graveyard.dead, limit=2)
    assert [letter.message.id for letter in few] == [first.id, second.id]
    letter = await graveyard.letters.show_dead_letter(graveyard.dead, second.id)
    assert letter.message.payload == b"1"
    assert letter.message.key == b"k"
    assert letter.message.metadata[wire.PF_ERROR_MESSAGE] == "it broke"
    assert await graveyard.letters.count_dead_letters(graveyard.dead) == 3, "reading takes none"


@needs("dead_letters")
async def test_an_unknown_letter_is_an_error(bench: Bench) -> None:
    graveyard = Graveyard(bench)
    await bench.join(graveyard.topic)
    await graveyard.bury(b"x")
    letters, dead = graveyard.letters, graveyard.dead
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await letters.show_dead_letter(dead, "nobody")
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await letters.replay_dead_letters(dead, ["nobody"])
    with pytest.raises(DeadLetterNotFoundError, match="nobody"):
        await letters.purge_dead_letters(dead, ["nobody"])
    assert await letters.count_dead_letters(dead) == 1


@needs("dead_letters")
async def test_a_replay_reaches_the_group_that_failed_and_no_other(bench: Bench) -> None:
    graveyard = Graveyard(bench)
    failed = await bench.join(graveyard.topic, "billing")
    other = await bench.join(graveyard.topic, "mailing")
    first, second = await graveyard.bury(b"1", b"2")
    assert await graveyard.letters.replay_dead_letters(graveyard.dead, [second.id]) == 1
    (delivery,) = await failed.take(1, within=10)
    assert delivery.message.id == second.id
    assert delivery.message.topic == graveyard.topic
    assert delivery.message.payload == b"2"
    assert delivery.message.key == b"k"
    assert delivery.message.metadata["correlation_id"] == "c-1"
    assert wire.PF_ERROR_MESSAGE not in delivery.message.metadata
    assert delivery.failures == 0
    await failed.ack(delivery)
    await other.nothing()
    await graveyard.count(1)
    left = await graveyard.letters.list_dead_letters(graveyard.dead)
    assert [letter.message.id for letter in left] == [first.id]


@needs("dead_letters")
async def test_all_letters_are_replayed(bench: Bench) -> None:
    graveyard = Graveyard(bench)
    member = await bench.join(graveyard.topic)
    await graveyard.bury(*numbers(0, 3))
    assert await graveyard.letters.replay_dead_letters(graveyard.dead) == 3
    batch = await member.take(3, within=10)
    assert sorted(payloads(batch)) == numbers(0, 3)
    await member.ack(*batch)
    await graveyard.count(0)
    await member.nothing()


@needs("dead_letters")
async def test_a_replay_to_the_origin_reaches_every_group(bench: Bench) -> None:
    graveyard = Graveyard(bench)
    members = [await bench.join(graveyard.topic, group) for group in ("billing", "mailing")]
    (letter,) = await graveyard.bury(b"1")
    count = await graveyard.letters.replay_dead_letters(graveyard.dead, [letter.id], to_origin=True)
    assert count == 1
    for member in members:
        (delivery,) = await member.take(1, within=10)
        assert delivery.message.id == letter.id
        await member.ack(delivery)
    await graveyard.count(0)


@needs("dead_letters")
async def test_letters_are_purged(bench: Bench) -> None:
    graveyard = Graveyard(bench)
    member = await bench.join(graveyard.topic)
    first, *_ = await graveyard.bury(*numbers(0, 4))
    assert await graveyard.letters.purge_dead_letters(graveyard.dead, [first.id]) == 1
    await graveyard.count(3)
    with pytest.raises(DeadLetterNotFoundError):
        await graveyard.letters.show_dead_letter(graveyard.dead, first.id)
    assert await graveyard.letters.purge_dead_letters(graveyard.dead) == 3
    await graveyard.count(0)
    await member.nothing()


@needs("dead_letters", "durable")
async def test_letters_survive_a_restart(bench: Bench) -> None:
    graveyard = Graveyard(bench)
    await bench.join(graveyard.topic)
    (letter,) = await graveyard.bury(b"x")
    await bench.reopen()
    assert isinstance(bench.transport, DeadLetters)
    found = await bench.transport.list_dead_letters(graveyard.dead)
    assert [each.message.id for each in found] == [letter.id]


@needs("dead_letters", "groups")
async def test_a_group_that_reads_the_letters_leaves_them_where_they_are(bench: Bench) -> None:
    graveyard = Graveyard(bench)
    await bench.join(graveyard.topic)
    undertaker = await bench.join(graveyard.dead, "undertaker", dead_letter_topics=())
    (letter,) = await graveyard.bury(b"x")
    (delivery,) = await undertaker.take(1)
    assert delivery.message.id == letter.id
    await undertaker.ack(delivery)
    await undertaker.nothing()
    await graveyard.count(1)
    assert await graveyard.letters.replay_dead_letters(graveyard.dead) == 1
    await graveyard.count(0)
