"""Publishes each message through the sender of its partition."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from functools import lru_cache
from operator import attrgetter
from typing import TypeAlias

from aiokafka.errors import UnknownTopicOrPartitionError
from aiokafka.partitioner import murmur2

from protoflow import wire
from protoflow.error_codes import NO_DELAY, NO_SUBSCRIBER, NOT_OPEN
from protoflow.errors import CapabilityError, PublishError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.errors import malformed, publish_error
from protoflow.transports.kafka.groups import has_group
from protoflow.transports.kafka.partition_sender import PartitionSender
from protoflow.transports.kafka.producers import Producers
from protoflow.transports.kafka.publish_deadlines import Deadlines
from protoflow.transports.kafka.record_encoder import RecordEncoder

#: A waiting message, its partition if that is fixed, and the submission and index of its result.
_Item: TypeAlias = tuple[Message, int | None, Submission, int]
#: The number of consecutive messages without a key that go to one partition, for larger batches.
_STAY = 64
#: Seconds after which an unconfirmed message turns readiness red.
_PATIENCE = 10.0
#: The number of topics that are cached.
_REMEMBERED = 1024
#: Cached, because aiokafka's hash takes a microsecond for four bytes, and keys repeat.
_hash = lru_cache(maxsize=4096)(murmur2)
_delay = attrgetter("delay")


def partition_of(key: bytes, partitions: int) -> int:
    """Returns the partition of a key, as Kafka's own clients compute it."""
    number: int = _hash(key) & 0x7FFFFFFF
    return number % partitions


class _Topic:
    """A topic to which messages are published.

    Attributes:
        name: its name at the broker.
        partitions: all partitions.
        available: the partitions with a leader.
        lanes: the senders by partition.
        unsorted: messages that wait until the partitions and limits of the topic are known.
        task: the task that queries them.
        has_group: whether a consumer group was found.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.partitions: list[int] = []
        self.available: list[int] = []
        self.lanes: dict[int, PartitionSender] = {}
        self.unsorted: deque[_Item] = deque()
        self.task: asyncio.Task[None] | None = None
        self.has_group = False
        self._stays = 0
        self._place = 0

    @property
    def is_busy(self) -> bool:
        """Whether messages of the topic are in flight."""
        return self.task is not None or any(lane.task for lane in self.lanes.values())

    def partition_of(self, key: bytes | None) -> int:
        """Returns the partition of a key, as Kafka's own clients compute it; without a key, any."""
        partitions = self.partitions
        if key is not None:
            number: int = _hash(key) & 0x7FFFFFFF
            return partitions[number % len(partitions)]
        if not self._stays or self._place not in self.available:
            self._stays = _STAY
            self._place = random.choice(self.available or partitions)  # noqa: S311  not a secret
        self._stays -= 1
        return self._place


class KafkaPublisher:
    """Publishes in order per partition, and converts the results."""

    def __init__(self, context: KafkaContext) -> None:
        self._context = context
        self.encoder = RecordEncoder(context)
        # A lowered limit may be the reason why a producer was replaced.
        self._producers = Producers(context, self.encoder.forget)
        self._topics: dict[str, _Topic] = {}
        self._deadlines = Deadlines(context.options.publish_timeout)
        self._closed = False

    async def open(self) -> None:
        """Connects."""
        await self._producers.open()

    def submit(
        self, messages: Sequence[Message], partitions: Sequence[int] | None = None
    ) -> asyncio.Future[Sequence[PublishError | None]]:
        """Queues messages; `partitions` overrides the partitions of their keys."""
        if any(map(_delay, messages)) and any(message.delay > 0 for message in messages):
            raise CapabilityError(
                "kafka cannot delay messages: publish without delay", code=NO_DELAY
            )
        submission = self._deadlines.submission(len(messages))
        topic: _Topic | None = None
        logical: str | None = None
        ready = False
        for index, message in enumerate(messages):
            if topic is None or message.topic != logical:
                logical = message.topic
                try:
                    topic = self._topics.get(logical) or self._open_topic(logical)
                except PublishError as error:
                    submission.done(index, error)
                    topic = None
                    continue
                ready = topic.task is None and self._is_known(topic)
            partition = partitions[index] if partitions else None
            if ready:
                # A refusal makes the encoder forget the limit of the topic.
                ready = self._sort(topic, message, partition, submission, index) or (
                    self.encoder.knows(topic.name)
                )
                continue
            topic.unsorted.append((message, partition, submission, index))
            if topic.task is None:
                topic.task = asyncio.get_running_loop().create_task(self._learn(topic))
        return submission.future

    def _open_topic(self, logical: str) -> _Topic:
        if self._closed:
            raise PublishError("kafka: the transport is closed", code=NOT_OPEN)
        if len(self._topics) >= _REMEMBERED:  # the names of topics may come from data
            self._topics = {name: item for name, item in self._topics.items() if item.is_busy}
        topic = self._topics[logical] = _Topic(self.encoder.physical(logical))
        return topic

    def _is_known(self, topic: _Topic) -> bool:
        """Whether messages to a topic can be sent without further queries."""
        producer = self._producers.current
        if producer is None or not self.encoder.knows(topic.name):
            return False
        cluster = producer.client.cluster
        topic.partitions = sorted(cluster.partitions_for_topic(topic.name) or ())
        topic.available = list(cluster.available_partitions_for_topic(topic.name) or ())
        return bool(topic.partitions) and (
            topic.has_group or not self._context.settings.require_subscriber
        )

    def _sort(
        self,
        topic: _Topic,
        message: Message,
        partition: int | None,
        submission: Submission,
        index: int,
    ) -> bool:
        """Adds a message to the sender of its partition; returns False if it has an error."""
        try:
            place = topic.partition_of(message.key) if partition is None else partition
            lane = topic.lanes.get(place)
            if lane is None:
                lane = topic.lanes[place] = PartitionSender(
                    topic.name, place, self._producers, self.encoder, self._context.options
                )
            lane.add(message, submission, index)
        except PublishError as error:
            submission.done(index, error)
        except Exception as error:  # an error in a message must not affect the others
            submission.done(index, malformed(error, topic.name))
        else:
            return True
        return False

    async def _learn(self, topic: _Topic) -> None:
        """Queries partitions and limits of a topic, and sends the messages that wait for them."""
        waiting = topic.unsorted
        try:
            while waiting:
                try:
                    await self._ask(topic)
                    self._is_known(topic)
                except Exception as error:  # whatever the error is, no caller may wait for ever
                    while waiting:
                        _, _, submission, index = waiting.popleft()
                        submission.done(index, publish_error(error, topic.name, 0))
                while waiting and self.encoder.knows(topic.name) and topic.partitions:
                    item = waiting.popleft()
                    message, _, submission, index = item
                    try:
                        await self._require_group(message, topic)
                    except Exception as error:
                        submission.done(index, publish_error(error, topic.name, 0))
                    else:
                        self._sort(topic, *item)
        finally:
            topic.task = None

    async def _ask(self, topic: _Topic) -> None:
        """Waits for the topic and asks for its limit. Raises KafkaError or TimeoutError."""
        producer = await self._producers.get()
        async with asyncio.timeout(self._context.options.metadata_timeout):
            if not await producer.partitions_for(topic.name):
                raise UnknownTopicOrPartitionError(topic.name)
            await self.encoder.learn(topic.name)

    async def _require_group(self, message: Message, topic: _Topic) -> None:
        """Refuses messages without a consumer group, except for retries and dead letters."""
        if topic.has_group or not self._context.settings.require_subscriber:
            return
        if wire.PF_GROUP in message.metadata or wire.PF_DLQ_RESOLVED in message.metadata:
            return
        topic.has_group = await has_group(self._context.admin, topic.name)
        if not topic.has_group:
            raise PublishError(
                f"kafka: no group consumes topic {topic.name}, and require_subscriber is set",
                code=NO_SUBSCRIBER,
            )

    @property
    def problem(self) -> str | None:
        """Describes the event for which publishing has waited too long, or returns None."""
        age = self._deadlines.age
        if age < _PATIENCE:
            return None
        return f"kafka: a message was not confirmed for {age:.0f} s"

    async def close(self, seconds: float) -> None:
        """Waits for submitted messages for a limited time, and disconnects."""
        waiting = [submission.future for submission in self._deadlines.open]
        if waiting and not self._closed:
            await asyncio.wait(waiting, timeout=seconds)
        self._closed = True
        working = [lane.task for topic in self._topics.values() for lane in topic.lanes.values()]
        working += [topic.task for topic in self._topics.values()]
        tasks = [task for task in working if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._topics.clear()
        self._deadlines.expire_all("closed before the broker confirmed")
        await self._producers.close(1.0 if waiting else seconds)
