"""Publishing: one idempotent producer, one long-lived task a topic, none a message."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from protoflow import wire
from protoflow.errors import CapabilityError, PublishError
from protoflow.message import Message
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.errors import malformed, publish_error
from protoflow.transports.kafka.groups import has_group
from protoflow.transports.kafka.options import Compression, KafkaOptions
from protoflow.transports.kafka.outgoing import Outbound, physical_topic
from protoflow.transports.kafka.submission import Deadlines, Result, Submission

_log = logging.getLogger("protoflow.transports.kafka")
#: Idle topics beyond this many lose their task; the next publish starts it again.
_MANY_TOPICS = 256
#: A message on its way: itself, its partition if that is fixed, and where the result goes.
_Item = tuple[Message, int | None, Submission, int]


class _Lane:
    """The messages of one topic, in the order in which they were submitted."""

    __slots__ = ("arrived", "has_group", "queue", "task", "topic")

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.queue: deque[_Item] = deque()
        self.arrived = asyncio.Event()
        self.has_group = False
        self.task: asyncio.Task[None] | None = None


class Publisher:
    """Publishes in order per topic and maps what comes of it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.outbound = Outbound(context)
        self._lanes: dict[str, _Lane] = {}
        self._deadlines = Deadlines(context.options.publish_timeout)
        self._producer: AIOKafkaProducer | None = None
        self._usable = asyncio.Event()
        self._replacing: asyncio.Task[None] | None = None
        self._closed = False

    async def open(self) -> None:
        """Connects."""
        producer = AIOKafkaProducer(**producer_arguments(self._context))
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producer = producer
        self._usable.set()

    def submit(
        self, messages: Sequence[Message], partitions: Sequence[int] | None = None
    ) -> asyncio.Future[Sequence[Result]]:
        """Queues messages; `partitions` overrules where their keys put them."""
        if any(message.delay > 0 for message in messages):
            raise CapabilityError("kafka keeps no message back: publish without delay")
        submission = self._deadlines.submission(len(messages))
        for index, message in enumerate(messages):
            try:
                lane = self._lanes.get(message.topic) or self._open_lane(message.topic)
            except PublishError as error:
                submission.settle(index, error)
                continue
            partition = partitions[index] if partitions else None
            lane.queue.append((message, partition, submission, index))
            lane.arrived.set()
        return submission.future

    def _open_lane(self, topic: str) -> _Lane:
        if self._closed:
            raise PublishError("kafka: the transport is closed")
        lane = self._lanes[topic] = _Lane(physical_topic(topic))
        lane.task = asyncio.get_running_loop().create_task(self._drain(topic, lane))
        return lane

    async def _drain(self, topic: str, lane: _Lane) -> None:
        """Hands over the messages of a topic, for as long as the topic is used."""
        queue = lane.queue
        while True:
            if not queue:
                if len(self._lanes) > _MANY_TOPICS:
                    del self._lanes[topic]
                    return
                lane.arrived.clear()
                await lane.arrived.wait()
            await self._usable.wait()
            producer = self._producer
            if producer is None:
                continue
            if not self.outbound.knows(lane.topic) and not await self._learn(lane, producer):
                continue
            while queue and self._usable.is_set():
                await self._send(producer, lane, *queue.popleft())

    async def _learn(self, lane: _Lane, producer: AIOKafkaProducer) -> bool:
        """Waits for the topic and asks for its limit; without it what waits has failed."""
        options = self._context.options
        try:
            async with asyncio.timeout(options.metadata_timeout):
                await producer.partitions_for(lane.topic)
                await self.outbound.learn(lane.topic)
        except (KafkaError, TimeoutError) as error:
            while lane.queue:
                _, _, submission, index = lane.queue.popleft()
                submission.settle(index, publish_error(error, lane.topic, 0))
            return False
        return True

    async def _send(
        self,
        producer: AIOKafkaProducer,
        lane: _Lane,
        message: Message,
        partition: int | None,
        submission: Submission,
        index: int,
    ) -> None:
        if not submission.is_open(index):
            return  # given up: nobody is to find it later
        size = 0
        try:
            if self._context.settings.require_subscriber and not lane.has_group:
                await self._require_group(message, lane)
            record = self.outbound.encode(message, lane.topic)
            size = record.size
            future = await producer.send(
                lane.topic, record.value, record.key, partition, headers=record.headers
            )
        except (MessageSizeTooLargeError, PublishError) as error:
            submission.settle(index, publish_error(error, lane.topic, size))
        except (KafkaError, TimeoutError) as error:
            submission.settle(index, publish_error(error, lane.topic, size))
            self._replace()
        except Exception as error:  # what is no bytes, no text: the others must go on
            submission.settle(index, malformed(error, lane.topic))
        else:
            future.add_done_callback(partial(self._sent, lane.topic, size, submission, index))

    async def _require_group(self, message: Message, lane: _Lane) -> None:
        """Retries and dead letters are kept for whoever looks; other messages need a group."""
        if wire.PF_GROUP in message.metadata or wire.PF_DLQ_RESOLVED in message.metadata:
            return
        lane.has_group = await has_group(self._context.admin, lane.topic)
        if not lane.has_group:
            raise PublishError(
                f"kafka: no group consumes topic {lane.topic}, and require_subscriber is set"
            )

    def _sent(
        self,
        topic: str,
        size: int,
        submission: Submission,
        index: int,
        future: asyncio.Future[Any],
    ) -> None:
        error = None if future.cancelled() else future.exception()
        if error is None:
            submission.settle(index, None)
            return
        submission.settle(index, publish_error(error, topic, size))
        self._replace()

    def _replace(self) -> None:
        """Takes a new producer: after a batch has failed, aiokafka's numbers have a gap, and
        the broker would refuse all later batches of that partition as out of order."""
        if self._usable.is_set() and not self._closed:
            self._usable.clear()
            self._replacing = asyncio.get_running_loop().create_task(self._replace_producer())

    async def _replace_producer(self) -> None:
        _log.warning("a batch was refused: publishing goes on with a new producer")
        self.outbound.forget()  # a lowered limit may have been the reason
        await self._stop_producer(self._context.options.request_timeout)
        while not self._closed:
            try:
                await self.open()
            except (KafkaError, OSError, TimeoutError):
                await asyncio.sleep(1)
            else:
                return

    async def _stop_producer(self, seconds: float) -> None:
        producer, self._producer = self._producer, None
        if producer is None:
            return
        stopping = asyncio.get_running_loop().create_task(producer.stop())
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(seconds):
                await stopping
                return
        # It waits for a broker that does not come: its last batches are given up.
        with contextlib.suppress(KafkaError):
            await producer.client.close()

    async def close(self, seconds: float) -> None:
        """Waits for what was submitted, at most so long, then disconnects."""
        waiting = [submission.future for submission in self._deadlines.open]
        if waiting and not self._closed:
            await asyncio.wait(waiting, timeout=seconds)
        self._closed = True
        tasks = [lane.task for lane in self._lanes.values() if lane.task]
        tasks += [self._replacing] if self._replacing else []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._lanes.clear()
        self._deadlines.expire_all("closed before the broker confirmed")
        await self._stop_producer(1.0 if waiting else seconds)


def producer_arguments(context: Context) -> dict[str, Any]:
    """The keyword arguments of aiokafka's producer."""
    options: KafkaOptions = context.options
    return context.client | {
        "acks": "all",
        "enable_idempotence": options.idempotence,
        "compression_type": (
            None if options.compression is Compression.NONE else options.compression.value
        ),
        "linger_ms": int(options.linger * 1000),
        "max_batch_size": options.max_batch_size,
        "max_request_size": options.max_request_size,
    }
