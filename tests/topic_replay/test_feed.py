"""The feed of a version: its portions, and the messages that dead letters name."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest
from protoflow import wire
from protoflow.message import Action, Message, Settlement
from protoflow.topic_replay.entries import Entry, Status
from protoflow.topic_replay.feed import Feed
from protoflow.topic_replay.replay import Replay
from protoflow.topic_replay.window import Window
from protoflow.transport import TopicRecord

_LARGE = bytes(1_000_000)


async def records(count: int) -> AsyncGenerator[TopicRecord, None]:
    for number in range(count):
        message = Message(id=str(number), topic="t", payload=_LARGE)
        yield TopicRecord(message=message, position=str(number))


@pytest.mark.parametrize("portion", [20, 100])
async def test_portions_of_large_messages_are_smaller_and_the_same_in_all_versions(
    portion: int,
) -> None:
    """100 messages of 1 MB do not fit into memory at once, so nobody may wait for them."""
    reported: list[Entry] = []
    window = Window(2, 256, reported.append)
    feeds = [Feed(version, window.settle, lambda: None, portion) for version in range(2)]
    batches: list[list[int]] = [[], []]

    async def handle(version: int) -> None:
        while found := await feeds[version].receive(1000, 1 << 40):
            await asyncio.sleep(0.001 * version)
            batches[version].append(len(found))
            feeds[version].settle([Settlement(each, Action.ACK) for each in found])

    replay = Replay(feeds, window)
    async with asyncio.timeout(20):
        await asyncio.gather(replay.run(records(150)), handle(0), handle(1))
    assert len(reported) == 150
    assert batches[0] == batches[1]
    assert max(batches[0]) == min(portion, 33)


async def test_a_dead_letter_belongs_to_its_message_also_if_two_have_one_position() -> None:
    """On Redis, each stream of a topic has its own positions."""
    feed = Feed(0, lambda *_: None, lambda: None)
    for id in "ab":
        message = Message(id=id, topic="t", payload=b"")
        feed.put(Entry(TopicRecord(message=message, position="5-0"), [None]))
    first, second = await feed.receive(10, 1000)
    origin = {wire.PF_ORIGINAL_SHARD: "0", wire.PF_ORIGINAL_POSITION: "5-0"}
    feed.fail(Message(id="a", topic="dead", payload=b"", metadata=origin))
    assert first.receipt.result.status is Status.FAILED
    assert second.receipt.result.status is Status.UNHANDLED
