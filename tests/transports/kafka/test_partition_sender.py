"""What is published to one partition: in order, once, each message with a result of its own."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.transports.kafka.options import KafkaOptions
from protoflow.transports.kafka.partition_sender import PartitionSender
from protoflow.transports.kafka.publish_deadlines import Deadlines
from protoflow.transports.kafka.publisher import _Topic
from protoflow.transports.kafka.record_encoder import RecordEncoder

LARGEST = 2000


class Broker:
    """A producer and its broker, which refuses batches above a limit that nobody knows."""

    def __init__(self, limit: int = 10**6) -> None:
        self.limit = limit
        self.batches: list[list[str]] = []
        self.replaced = 0
        self.sending = 0
        self.failure: Exception | None = None
        self.absences: list[Exception] = []

    def create_batch(self) -> BatchBuilder:
        return BatchBuilder(LARGEST, 0)

    async def get(self) -> Broker:
        if self.absences:
            raise self.absences.pop()
        return self

    def replace(self) -> None:
        self.replaced += 1

    async def confirmed(self, sent: asyncio.Future[None]) -> None:
        try:
            await sent
        finally:
            self.sending -= 1

    async def send_batch(
        self, builder: BatchBuilder, topic: str, *, partition: int
    ) -> asyncio.Future[None]:
        assert (topic, partition) == ("orders", 3)
        self.sending += 1
        assert self.sending == 1, "one batch on its way at a time"
        builder.close()
        buffer = bytes(builder._build())
        sent: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()
        if self.failure is not None:
            loop.call_soon(sent.set_exception, self.failure)
        elif len(buffer) > self.limit:
            loop.call_soon(sent.set_exception, MessageSizeTooLargeError())
        else:
            self.batches.append(ids(buffer))
            loop.call_soon(sent.set_result, None)
        return sent

    @property
    def taken(self) -> list[str]:
        return [id for batch in self.batches for id in batch]


def ids(buffer: bytes) -> list[str]:
    found = []
    records = MemoryRecords(buffer)
    while records.has_next():
        batch = records.next_batch()
        assert batch is not None
        found += [(dict(record.headers)["ce_id"] or b"").decode() for record in batch]
    return found


def lane(broker: Any, **options: Any) -> PartitionSender:
    tunables = KafkaOptions(max_batch_size=LARGEST, **options)
    context: Any = SimpleNamespace(options=tunables, admin=None)
    return PartitionSender("orders", 3, broker, RecordEncoder(context), tunables)


def message(number: int, size: int) -> Message:
    return Message(id=str(number), topic="orders", payload=bytes(size))


async def publish(
    sizes: list[int], turns: set[int], broker: Broker, **options: Any
) -> list[PublishError | None]:
    """Submits messages one by one, with a turn of the loop before some."""
    submission = Deadlines(60).submission(len(sizes))
    own = lane(broker, **options)
    for number, size in enumerate(sizes):
        if number in turns:
            await asyncio.sleep(0)
        own.add(message(number, size), submission, number)
    return list(await submission.future)


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2500), min_size=1, max_size=40),
    st.sets(st.integers(0, 40)),
    st.integers(300, 3000),
)
def test_each_message_is_taken_once_and_in_order_or_refused_alone(
    sizes: list[int], turns: set[int], limit: int
) -> None:
    broker = Broker(limit)
    results = asyncio.run(publish(sizes, turns, broker))
    taken = [str(number) for number, result in enumerate(results) if result is None]
    assert broker.taken == taken
    for size, result in zip(sizes, results, strict=True):
        # 61 bytes of a batch, and at most 60 of a record without its payload.
        assert result is None or isinstance(result, PublishRefusedError)
        assert result is not None or size + 61 <= limit
        assert result is None or size + 121 > limit


async def test_what_comes_while_a_batch_is_on_its_way_goes_with_the_next() -> None:
    broker = Broker()
    assert not any(await publish([10] * 30, {1}, broker))
    assert [len(batch) for batch in broker.batches] == [1, 29]


async def test_a_batch_lingers_for_company() -> None:
    broker = Broker()
    assert not any(await publish([10] * 10, set(range(10)), broker, linger=0.05))
    assert broker.batches == [[str(number) for number in range(10)]]


async def test_a_lost_connection_fails_the_batch_and_takes_a_new_producer() -> None:
    broker = Broker()
    broker.failure = KafkaConnectionError("gone")
    results = await publish([10, 10], set(), broker)
    assert [type(result) for result in results] == [PublishError, PublishError]
    assert broker.replaced == 1


async def test_a_producer_that_cannot_be_had_fails_one_batch_and_the_lane_goes_on() -> None:
    broker = Broker()
    broker.absences = [ConnectionResetError("whatever")]
    async with asyncio.timeout(10):
        first, second = await publish([1500, 1500], set(), broker)
    assert isinstance(first, PublishError)
    assert not isinstance(first, PublishRefusedError), "it may be published again"
    assert second is None
    assert broker.taken == ["1"]


async def test_a_malformed_message_keeps_nobody_from_being_sent() -> None:
    broker = Broker()
    submission = Deadlines(60).submission(3)
    own = lane(broker)
    bad: Any = "text"
    own.add(message(0, 5), submission, 0)
    with pytest.raises(TypeError):
        own.add(Message(id="1", topic="orders", payload=bad), submission, 1)
    own.add(message(2, 5), submission, 2)
    submission.done(1, PublishError("malformed"))
    assert (await submission.future)[::2] == [None, None]
    assert broker.taken == ["0", "2"]


async def test_what_was_given_up_before_its_turn_is_not_sent() -> None:
    broker = Broker()
    submission = Deadlines(60).submission(1)
    own = lane(broker)
    own.add(message(0, 5), submission, 0)
    submission.finish(PublishError("late"))
    await asyncio.sleep(0.01)
    assert broker.batches == []
    assert own.task is None


@given(st.lists(st.binary(max_size=40), min_size=1), st.integers(1, 30))
def test_keys_go_where_other_clients_put_them(keys: list[bytes], count: int) -> None:
    from aiokafka.partitioner import DefaultPartitioner

    topic = _Topic("orders")
    topic.partitions = list(range(count))
    for key in keys:
        assert topic.partition_of(key) == DefaultPartitioner()(key, topic.partitions, [])


def test_messages_without_key_move_on_and_avoid_partitions_without_leader() -> None:
    topic = _Topic("orders")
    topic.partitions, topic.available = [0, 1, 2, 3], [1, 3]
    places = [topic.partition_of(None) for _ in range(2000)]
    assert set(places) == {1, 3}
    topic.available = [2]
    assert topic.partition_of(None) == 2
    topic.available = []
    assert topic.partition_of(None) in topic.partitions
