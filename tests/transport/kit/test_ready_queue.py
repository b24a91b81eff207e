"""ReadyQueue: a model of it, its limits and its receivers."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from protoflow.message import Delivery
from protoflow.transport.kit.ready_queue import ReadyQueue

from tests.transport.kit import make_delivery

SHARDS = st.sampled_from([0, 1, "retry"])


class ReadyQueueMachine(RuleBasedStateMachine):
    """The queue against lists that are searched and sorted naively."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.queue = self.loop.run_until_complete(_make(20, 60))
        self.waiting: dict[str | int, list[Delivery]] = {0: [], 1: [], "retry": []}
        self.handed_out: list[Delivery] = []
        self.paused: set[str | int] = set()
        self.next = 0

    def teardown(self) -> None:
        self.loop.close()

    @rule(shard=SHARDS, size=st.integers(0, 30))
    def append(self, shard: str | int, size: int) -> None:
        delivery = make_delivery(self.next, shard=shard, size=size)
        self.next += 1
        self.queue.append(delivery)
        self.waiting[shard].append(delivery)

    @rule(max_messages=st.integers(1, 10), max_bytes=st.integers(0, 60))
    def take(self, max_messages: int, max_bytes: int) -> None:
        batch = self.queue.take(max_messages, max_bytes)
        may = {shard: each for shard, each in self.waiting.items() if shard not in self.paused}
        assert len(batch) <= max_messages
        assert (
            sum(delivery.size for delivery in batch[1:]) + (batch[0].size if batch else 0)
            <= max_bytes
            or len(batch) == 1
        )
        assert bool(batch) == any(may.values())
        for delivery in batch:
            assert may[delivery.shard].pop(0) is delivery  # the first of its shard
        self.handed_out += batch

    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        if not self.handed_out:
            return
        index = data.draw(st.integers(0, len(self.handed_out) - 1))
        delivery = self.handed_out.pop(index)
        self.queue.put_back(delivery)
        lane = self.waiting[delivery.shard]
        lane.append(delivery)
        lane.sort(key=lambda each: int(each.position))

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        everything = [each for lane in self.waiting.values() for each in lane] + self.handed_out
        chosen = [each for each in everything if data.draw(st.booleans())]
        removed = self.queue.withdraw(chosen)
        assert {*removed} == {each for each in chosen if each not in self.handed_out}
        for lane in self.waiting.values():
            lane[:] = [each for each in lane if each not in removed]

    @rule(shard=SHARDS)
    def withdraw_shard(self, shard: str | int) -> None:
        assert self.queue.withdraw_shards({shard}) == self.waiting[shard]
        self.waiting[shard] = []

    @rule(shard=SHARDS)
    def pause(self, shard: str | int) -> None:
        self.queue.pause([shard])
        self.paused.add(shard)

    @rule(shard=SHARDS)
    def resume(self, shard: str | int) -> None:
        self.queue.resume([shard])
        self.paused.discard(shard)

    @invariant()
    def counts_are_right(self) -> None:
        everything = [each for lane in self.waiting.values() for each in lane]
        assert len(self.queue) == len(everything)
        assert self.queue.bytes == sum(delivery.size for delivery in everything)
        assert self.queue.has_room == (len(everything) < 20 and self.queue.bytes < 60)


TestReadyQueueMachine = ReadyQueueMachine.TestCase
TestReadyQueueMachine.settings = settings(deadline=None)


async def _make(max_messages: int, max_bytes: int) -> ReadyQueue:
    return ReadyQueue(max_messages=max_messages, max_bytes=max_bytes)


async def test_the_first_delivery_may_be_larger_than_the_limit() -> None:
    queue = ReadyQueue()
    queue.extend([make_delivery(1, size=100), make_delivery(2)])
    assert [each.position for each in queue.take(10, 50)] == [1]
    assert [each.position for each in queue.take(10, 50)] == [2]


async def test_shards_take_turns() -> None:
    queue = ReadyQueue()
    queue.extend([make_delivery(number, shard=number % 2) for number in range(8)])
    assert [queue.take(1, 10)[0].shard for _ in range(4)] == [0, 1, 0, 1]


async def test_a_receiver_waits_for_the_first_delivery() -> None:
    queue = ReadyQueue()
    receiving = asyncio.create_task(queue.receive(10, 10))
    await asyncio.sleep(0)
    queue.append(make_delivery(1))
    assert [each.position for each in await receiving] == [1]


async def test_a_paused_receiver_gets_nothing_until_resume() -> None:
    queue = ReadyQueue()
    queue.pause([0])
    queue.append(make_delivery(1))
    receiving = asyncio.create_task(queue.receive(10, 10))
    for _ in range(3):
        await asyncio.sleep(0)
    assert not receiving.done()
    queue.resume([0])
    assert [each.position for each in await receiving] == [1]


async def test_a_cancelled_receiver_loses_nothing() -> None:
    queue = ReadyQueue()
    receiving = asyncio.create_task(queue.receive(10, 10))
    await asyncio.sleep(0)
    queue.append(make_delivery(1))
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    assert [each.position for each in await queue.receive(10, 10)] == [1]


async def test_several_receivers_share_what_arrives() -> None:
    queue = ReadyQueue()
    receivers = [asyncio.create_task(queue.receive(1, 10)) for _ in range(3)]
    await asyncio.sleep(0)
    queue.extend([make_delivery(number) for number in range(3)])
    found = [each.position for batch in await asyncio.gather(*receivers) for each in batch]
    assert sorted(map(int, found)) == [0, 1, 2]


async def test_close_ends_receivers_and_returns_the_rest() -> None:
    queue = ReadyQueue()
    queue.pause([0])
    queue.append(make_delivery(1))
    receiving = asyncio.create_task(queue.receive(10, 10))
    await asyncio.sleep(0)
    assert [each.position for each in queue.close()] == [1]
    assert await receiving == ()
    assert await queue.receive(10, 10) == ()
