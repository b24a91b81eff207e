"""Reading goes on where other partitions are empty or rest."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError
from hypothesis import given
from hypothesis import strategies as st
from protoflow.clock import Clock
from protoflow.message import Delivery, Message
from protoflow.transport import SubscriptionSettings
from protoflow.transports.kafka.fair_share import FairShare
from protoflow.transports.kafka.fetch_wait import wait_ms
from protoflow.transports.kafka.group_member import GroupMember
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.partition_flow import PartitionFlow
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup
from protoflow.transports.kafka.ready_deliveries import ReadyDeliveries
from protoflow.transports.kafka.record_reader import RecordReader
from protoflow.transports.kafka.unreadable_records import Unreadable

LONGEST = 500
BUSY, IDLE = TopicPartition("orders", 0), TopicPartition("orders.retry", 0)


@dataclass
class Unread:
    """aiokafka's result of a fetch that nobody has read yet."""

    _created: float
    fresh: bool = False

    def calculate_backoff(self) -> float:
        return 0.1 if self.fresh else 0.0


@given(st.lists(st.tuples(st.floats(0.1, 1000), st.booleans())))
def test_a_fetch_waits_for_a_tenth_of_what_lies_unread(lying: list[tuple[float, bool]]) -> None:
    now = time.monotonic()
    wait = wait_ms(LONGEST, [Unread(now - age, fresh) for age, fresh in lying])
    counted = [age for age, fresh in lying if not fresh]
    assert 0 < wait <= LONGEST
    if counted:
        assert wait <= min(counted) * 100 + 100, "some time has passed since"
    else:
        assert wait == LONGEST


class Consumer:
    """A consumer with messages in some partitions, which waits where it has none."""

    def __init__(self, **_: Any) -> None:
        self.asked: list[set[TopicPartition]] = []
        self.ready: dict[TopicPartition, list[Any]] = {}

    def assignment(self) -> frozenset[TopicPartition]:
        return frozenset((BUSY, IDLE))

    async def getmany(self, *tps: TopicPartition, **_: Any) -> dict[TopicPartition, list[Any]]:
        self.asked.append(set(tps) or {BUSY, IDLE})
        found = {tp: self.ready.pop(tp) for tp in tuple(self.ready) if not tps or tp in tps}
        if not found:
            await asyncio.sleep(60)
        return found


@dataclass
class FakeConsumption:
    """A subscription that is read for."""

    ready: ReadyDeliveries
    flow_control: PartitionFlow
    open: bool = True

    def set_problem(self, name: str, detail: str | None) -> None:
        pass


def ready_deliveries(wakeup: ReaderWakeup) -> ReadyDeliveries:
    settings = SubscriptionSettings(name="orders/billing", topic="orders", group="billing")
    return ReadyDeliveries(FairShare(settings, {}), wakeup)


def member(
    consumer: Any, *names: Any, on_lost_position: str = "stop"
) -> tuple[RecordReader, PartitionFlow, list[Partition]]:
    wakeup = ReaderWakeup()
    ready = ready_deliveries(wakeup)
    flow_control = PartitionFlow(ready, Clock(), 100, wakeup)
    consumption = FakeConsumption(ready, flow_control)
    partitions = [Partition(tp, shard, 0, consumption=consumption) for tp, shard in names]
    context = SimpleNamespace(settings=SimpleNamespace(on_lost_position=on_lost_position))
    shared = GroupMember(
        group="billing",
        context=context,  # type: ignore[arg-type]  # as much of one as the reader looks at
        consumer=consumer,
        topics=[],
        wakeup=wakeup,
        consumptions=[consumption],  # type: ignore[list-item]  # likewise
        partitions={partition.tp: partition for partition in partitions},
    )
    reader = RecordReader(shared, None, Unreadable())
    return reader, flow_control, partitions


async def test_a_partition_that_is_roused_is_asked_for_at_once() -> None:
    consumer = Consumer()
    reader, flow_control, (busy, idle) = member(consumer, (BUSY, 0), (IDLE, "retry"))
    running = asyncio.create_task(reader.run())
    try:
        flow_control.pause(busy)
        flow_control.pause(idle)
        flow_control.resume(idle)
        await asyncio.sleep(0.01)
        assert consumer.asked == [{IDLE}], "what rests is not asked for"
        flow_control.resume(busy)
        await asyncio.sleep(0.01)
        assert consumer.asked == [{IDLE}, {BUSY, IDLE}]
    finally:
        running.cancel()
        await asyncio.wait((running,))
    assert running.cancelled()


async def test_a_reader_whose_partitions_all_rest_asks_for_none() -> None:
    consumer = Consumer()
    reader, flow_control, partitions = member(consumer, (BUSY, 0), (IDLE, "retry"))
    for partition in partitions:
        flow_control.pause(partition)
    running = asyncio.create_task(reader.run())
    await asyncio.sleep(0.3)
    assert consumer.asked == []
    flow_control.resume(partitions[0])
    await asyncio.sleep(0.01)
    assert consumer.asked == [{BUSY}]
    running.cancel()
    await asyncio.wait((running,))
    assert running.cancelled()


class Failing(Consumer):
    """A consumer that fails once while it is read, and remembers where it is set."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failures = [failure]
        self.sought: dict[TopicPartition, int] = {}

    async def getmany(self, *tps: TopicPartition, **_: Any) -> dict[TopicPartition, list[Any]]:
        if self.failures:
            raise self.failures.pop()
        return await super().getmany(*tps)

    async def end_offsets(self, _tps: Any) -> dict[TopicPartition, int]:
        raise ConnectionResetError("gone")

    def seek(self, tp: TopicPartition, offset: int) -> None:
        self.sought[tp] = offset


@pytest.mark.parametrize(
    "failure", [ConnectionResetError("gone"), OffsetOutOfRangeError({BUSY: 7})]
)
async def test_what_was_read_before_a_failure_is_read_again(failure: Exception) -> None:
    """aiokafka has moved on; what it gave is nowhere else."""
    consumer = Failing(failure)
    reader, _, (busy, _) = member(consumer, (BUSY, 0), (IDLE, "retry"), on_lost_position="latest")
    busy.admit(4)
    running = asyncio.create_task(reader.run())
    try:
        async with asyncio.timeout(10):
            while not consumer.asked and not running.done():
                await asyncio.sleep(0.01)
        assert not running.done(), "a failure may pass"
        assert consumer.sought == {BUSY: 5, IDLE: 0}
    finally:
        running.cancel()
        await asyncio.wait((running,))


def delivery(partition: Partition, offset: int) -> Delivery:
    message = Message(id=str(offset), topic="orders", payload=b"")
    return Delivery(message=message, shard=partition.shard, position=offset, receipt=partition)


@given(st.integers(1, 30), st.lists(st.one_of(st.integers(1, 20), st.none()), max_size=40))
def test_a_partition_rests_from_a_full_window_until_a_quarter_of_it_is_free(
    window: int, steps: list[int | None]
) -> None:
    """A number reads so many messages, None finishes the oldest."""
    flow_control = PartitionFlow(ready_deliveries(ReaderWakeup()), Clock(), window, ReaderWakeup())
    partition = Partition(BUSY, 0, 0)
    rests = False
    for step in steps:
        if step is None:
            partition.finish(partition.watermark)
            flow_control.throttle(partition)
            rests = rests and partition.unfinished > window * 3 // 4
        else:
            offsets = range(partition.position, partition.position + step)
            assert all(partition.admit(offset) for offset in offsets)
            flow_control.accept(partition, [delivery(partition, offset) for offset in offsets])
            rests = rests or partition.unfinished >= window
        assert partition.resting == rests
