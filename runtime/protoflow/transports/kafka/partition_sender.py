"""Sends the messages of one partition in batches, in order."""

from __future__ import annotations

import asyncio
from collections import deque

from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from aiokafka.producer.message_accumulator import BatchBuilder

from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.kafka.errors import publish_error
from protoflow.transports.kafka.options import KafkaOptions
from protoflow.transports.kafka.producers import Producers
from protoflow.transports.kafka.record_encoder import EncodedRecord, RecordEncoder


class _Batch:
    """Records in the broker's format, and the receivers of their results.

    Records are encoded at once, so that only bytes are kept.
    """

    __slots__ = ("builder", "items")

    def __init__(self, builder: BatchBuilder) -> None:
        self.builder = builder
        self.items: list[tuple[Message, Submission, int]] = []

    def append(self, record: EncodedRecord, most: int) -> bool:
        """Writes a record; returns False if it does not fit into this many bytes."""
        builder = self.builder
        if builder.record_count() and builder.size() + record.size > most:
            return False
        written = builder.append(
            timestamp=None, key=record.key, value=record.value, headers=record.headers
        )
        return written is not None

    @property
    def is_open(self) -> bool:
        """Whether a caller still waits for one of the results."""
        return any(submission.is_open(index) for _, submission, index in self.items)

    def settle(self, error: Exception | None, topic: str) -> None:
        """Sets the result of every message."""
        for message, submission, index in self.items:
            size = len(message.payload or b"")
            submission.done(index, publish_error(error, topic, size) if error else None)


class PartitionSender:
    """Sends the messages of one partition in the order in which they were submitted.

    One batch is in flight at a time; later messages are sent with the next one. So a busy partition
    has large batches. Adding a message only appends it.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        producers: Producers,
        encoder: RecordEncoder,
        options: KafkaOptions,
    ) -> None:
        self._topic = topic
        self._partition = partition
        self._producers = producers
        self._encoder = encoder
        self._options = options
        self._waiting: deque[_Batch] = deque()
        self.task: asyncio.Task[None] | None = None

    def add(self, message: Message, submission: Submission, index: int) -> None:
        """Sends a message after those before it. Raises PublishRefusedError, or any error of
        writing a malformed message."""
        waiting = self._waiting
        record = self._encoder.encode(message, self._topic)
        most = min(self._options.max_batch_size, self._encoder.limit(self._topic))
        if not waiting or not waiting[-1].append(record, most):
            batch = _Batch(self._producers.create_batch())
            batch.append(record, most)
            waiting.append(batch)
        waiting[-1].items.append((message, submission, index))
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        """Sends until no message waits any more."""
        linger = self._options.linger
        try:
            while self._waiting:
                batch: _Batch | None = None
                try:
                    if linger and len(self._waiting) == 1:
                        await asyncio.sleep(linger)
                    producer = await self._producers.get()
                    batch = self._waiting.popleft()
                    if batch.is_open:  # a message that was given up must not be published later
                        await self._send(producer, batch)
                except Exception as error:  # whatever the error is, later messages are sent
                    (batch or self._waiting.popleft()).settle(error, self._topic)
        finally:
            self.task = None

    async def _send(self, producer: AIOKafkaProducer, batch: _Batch) -> None:
        try:
            batch.builder.close()
            sent = await producer.send_batch(batch.builder, self._topic, partition=self._partition)
            await self._producers.confirmed(sent)
        except MessageSizeTooLargeError as error:
            self._producers.replace()
            if len(batch.items) == 1:
                batch.settle(error, self._topic)
            else:
                self._waiting.extendleft(reversed(self._one_by_one(batch)))
        except Exception as error:  # whatever the error is, no caller may wait for ever
            self._producers.replace()
            batch.settle(error, self._topic)
        else:
            batch.settle(None, self._topic)

    def _one_by_one(self, batch: _Batch) -> list[_Batch]:
        """Sends messages one by one if they were too large together, because some may fit."""
        singles = []
        for message, submission, index in batch.items:
            try:
                record = self._encoder.encode(message, self._topic)
            except PublishError as error:
                submission.done(index, error)
                continue
            single = _Batch(self._producers.create_batch())
            single.append(record, record.size)
            single.builder.close()
            single.items.append((message, submission, index))
            singles.append(single)
        return singles
