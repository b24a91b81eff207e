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
from protoflow.transports.kafka.headers import Header
from protoflow.transports.kafka.options import KafkaOptions
from protoflow.transports.kafka.producers import Producers
from protoflow.transports.kafka.record_encoder import RecordEncoder


class _Batch:
    """Records in the broker's format, and the receivers of their results.

    Records are encoded at once, so that only bytes are kept.
    """

    __slots__ = ("_latest", "builder", "parts")

    def __init__(self, builder: BatchBuilder) -> None:
        self.builder = builder
        #: Messages and their indexes in a submission, in the order of the records.
        self.parts: list[tuple[Submission, list[Message], list[int]]] = []
        self._latest: Submission | None = None

    def append(self, message: Message, headers: list[Header], size: int, most: int) -> bool:
        """Writes a record; returns False if it does not fit into this many bytes."""
        builder = self.builder
        if self._latest is not None and builder.size() + size > most:
            return False
        return (
            builder.append(timestamp=None, key=message.key, value=message.payload, headers=headers)
            is not None
        )

    def expect(self, message: Message, submission: Submission, index: int) -> None:
        """Notes the receiver of the result of the last record."""
        if submission is not self._latest:
            self._latest = submission
            self.parts.append((submission, [], []))
        _submission, messages, indexes = self.parts[-1]
        messages.append(message)
        indexes.append(index)

    @property
    def count(self) -> int:
        """The number of messages."""
        return sum(len(indexes) for _submission, _messages, indexes in self.parts)

    @property
    def is_open(self) -> bool:
        """Whether a caller still waits for one of the results."""
        return any(any(map(part.is_open, indexes)) for part, _messages, indexes in self.parts)

    def confirm(self) -> None:
        """Notes that every message is published."""
        for submission, _messages, indexes in self.parts:
            submission.confirm(indexes)

    def fail(self, error: Exception, topic: str) -> None:
        """Sets the error of every message."""
        for submission, messages, indexes in self.parts:
            for message, index in zip(messages, indexes, strict=True):
                size = len(message.payload or b"")
                submission.done(index, publish_error(error, topic, size))


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
        headers, size = self._encoder.measure(message, self._topic)
        most = min(self._options.max_batch_size, self._encoder.limit(self._topic))
        batch = waiting[-1] if waiting else None
        if batch is None or not batch.append(message, headers, size, most):
            batch = _Batch(self._producers.create_batch())
            batch.append(message, headers, size, most)
            waiting.append(batch)
        batch.expect(message, submission, index)
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
                    (batch or self._waiting.popleft()).fail(error, self._topic)
        finally:
            self.task = None

    async def _send(self, producer: AIOKafkaProducer, batch: _Batch) -> None:
        try:
            batch.builder.close()
            sent = await producer.send_batch(batch.builder, self._topic, partition=self._partition)
            await self._producers.confirmed(sent)
        except MessageSizeTooLargeError as error:
            self._producers.replace()
            if batch.count == 1:
                batch.fail(error, self._topic)
            else:
                self._waiting.extendleft(reversed(self._one_by_one(batch)))
        except Exception as error:  # whatever the error is, no caller may wait for ever
            self._producers.replace()
            batch.fail(error, self._topic)
        else:
            batch.confirm()

    def _one_by_one(self, batch: _Batch) -> list[_Batch]:
        """Sends messages one by one if they were too large together, because some may fit."""
        singles = []
        for submission, messages, indexes in batch.parts:
            for message, index in zip(messages, indexes, strict=True):
                try:
                    headers, size = self._encoder.measure(message, self._topic)
                except PublishError as error:
                    submission.done(index, error)
                    continue
                single = _Batch(self._producers.create_batch())
                single.append(message, headers, size, size)
                single.expect(message, submission, index)
                single.builder.close()
                singles.append(single)
        return singles
