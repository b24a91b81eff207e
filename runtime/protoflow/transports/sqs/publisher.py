"""Publishing in batches, which are filled by count and bytes for each topic and queue."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from protoflow.error_codes import NO_DELAY, NOT_OPEN
from protoflow.errors import PublishError, PublishRefusedError, TopologyError, TransportError
from protoflow.message import Message
from protoflow.transport.interface import TopologyMode
from protoflow.transport.kit.submission import Submission
from protoflow.transports.sqs.connection import (
    BATCH,
    AccessDeniedError,
    AwsConnection,
    RefusedError,
)
from protoflow.transports.sqs.names import queue_of
from protoflow.transports.sqs.records import Encoded, encode
from protoflow.transports.sqs.resources import Resources

#: The group and deduplication ids that SQS accepts.
_ID: Final = re.compile(r"[!-~]{1,128}")
#: The group id of all messages, if a topic is in order.
_WHOLE: Final = "all"
#: The longest delay of a queue, in seconds; longer ones are repeated.
LONGEST_DELAY: Final = 900
#: Parts of error codes that AWS reports as the sender's fault although they are temporary.
_TEMPORARY: Final = ("hrottl", "KMS", "Internal", "Unavailable", "OverLimit")


class _Outgoing(NamedTuple):
    """A message on its way."""

    message: Message
    encoded: Encoded
    submission: Submission
    place: int

    def done(self, error: PublishError | None) -> None:
        """Sets its result."""
        self.submission.done(self.place, error)


class _Lane:
    """The messages to one topic or queue."""

    def __init__(self) -> None:
        self.waiting: deque[_Outgoing] = deque()
        self.workers: set[asyncio.Task[None]] = set()

    def take(self, limit: int) -> list[_Outgoing]:
        """Removes and returns what one request can take."""
        batch = [self.waiting.popleft()]
        size = batch[0].encoded.size
        while self.waiting and len(batch) < BATCH:
            size += self.waiting[0].encoded.size
            if size > limit:
                break
            batch.append(self.waiting.popleft())
        return batch


class SqsPublisher:
    """Publishes; to each topic in the order of `submit`, unless `parallel_sends` is above 1."""

    def __init__(self, connection: AwsConnection, resources: Resources) -> None:
        self._connection = connection
        self._resources = resources
        self._options = connection.options
        self._lanes: dict[str, _Lane] = {}

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """See `Transport.submit`; the topic may be the address of a queue."""
        submission = Submission(len(messages))
        for index, message in enumerate(messages):
            try:
                if message.delay > 0 and self._queue(message.topic) is None:
                    raise PublishRefusedError(
                        f"message {message.id!r}: topics of SNS have no delay", code=NO_DELAY
                    )
                encoded = encode(message, self._limit(message.topic))
            except PublishRefusedError as error:
                submission.done(index, error)
                continue
            if (lane := self._lanes.get(message.topic)) is None:
                lane = self._lanes[message.topic] = _Lane()
            lane.waiting.append(_Outgoing(message, encoded, submission, index))
            if len(lane.workers) < self._options.parallel_sends:
                worker = asyncio.get_running_loop().create_task(self._work(message.topic, lane))
                lane.workers.add(worker)
        return submission.future

    async def close(self) -> None:
        """Sends what was submitted; the caller bounds it."""
        workers = [worker for lane in self._lanes.values() for worker in lane.workers]
        try:
            if workers:
                await asyncio.wait(workers)
        finally:
            for worker in workers:
                worker.cancel()

    def _limit(self, topic: str) -> int:
        options = self._options
        return options.max_queue_message_bytes if self._queue(topic) else options.max_message_bytes

    def _queue(self, topic: str) -> str | None:
        """The queue to which a message goes; None: it goes to a topic."""
        if topic in self._resources.kept:
            return self._resources.names.dead_letters(topic)
        return self._resources.sources.place(topic) or queue_of(topic)

    async def _work(self, topic: str, lane: _Lane) -> None:
        batch: list[_Outgoing] = []
        try:
            while lane.waiting:
                batch = lane.take(self._limit(topic))
                await self._send(topic, batch)
        finally:
            left = (*batch, *lane.waiting)
            lane.waiting.clear()
            for each in left:  # cancelled, or a bug: the results are unknown
                each.done(PublishError("the transport was closed", code=NOT_OPEN))
            if (worker := asyncio.current_task()) is not None:
                lane.workers.discard(worker)
            if not lane.workers and self._lanes.get(topic) is lane:
                del self._lanes[topic]

    async def _send(self, topic: str, batch: Sequence[_Outgoing]) -> None:
        try:
            failed = await self._request(topic, batch)
        except RefusedError as error:
            if len(batch) == 1:
                return batch[0].done(_failure(batch[0].message, error))
            for each in batch:  # one of them may be the cause
                await self._send(topic, [each])
            return None
        except TransportError as error:
            for each in batch:
                each.done(_failure(each.message, error))
            return None
        answers = {each["Id"]: each for each in failed}
        for index, each in enumerate(batch):
            each.done(_result(each.message, answers.get(str(index))))
        return None

    async def _request(self, topic: str, batch: Sequence[_Outgoing]) -> Sequence[Mapping[str, Any]]:
        """Sends a batch; returns the failures."""
        queue, resources = self._queue(topic), self._resources
        if queue is None:
            if self._connection.settings.require_subscriber:
                await self._require(topic)
            try:
                return await self._publish(topic, batch)
            except TopologyError:
                if not self._creates:
                    raise
                await resources.make_topic(topic)
                return await self._publish(topic, batch)
        entries = [self._entry(index, each, "MessageBody") for index, each in enumerate(batch)]
        for entry, each in zip(entries, batch, strict=True):
            if each.message.delay > 0:
                entry["DelaySeconds"] = min(LONGEST_DELAY, math.ceil(each.message.delay))
            if not queue.endswith(".fifo"):
                entry.pop("MessageGroupId", None)
                entry.pop("MessageDeduplicationId", None)
        kept = topic in resources.kept
        # asked first: if it fails, nothing is stored that is stored again later
        also_publish = kept and await resources.subscribers(topic)
        try:
            failed = await self._store(queue, entries)
        except TopologyError:
            resources.forget(queue)
            if not (kept and self._creates):
                raise  # the subscription makes the other queues again
            failed = await self._store_again(queue, entries)
        if also_publish:
            failed = [*failed, *await self._publish(topic, batch)]  # for the groups that read it
        return failed

    async def _store(
        self, queue: str, entries: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        answer = await self._connection.call(
            "sqs", "send_message_batch", QueueUrl=await self._resources.url(queue), Entries=entries
        )
        failed: Sequence[Mapping[str, Any]] = answer.get("Failed", ())
        return failed

    async def _store_again(
        self, queue: str, entries: Sequence[Mapping[str, Any]]
    ) -> Sequence[Mapping[str, Any]]:
        """Stores dead letters in a new queue, because an operator has removed theirs."""
        try:
            await self._resources.make_queue(queue)
        except RefusedError as error:  # AWS makes no queue of a removed one's name for a minute
            raise TransportError(f"queue {queue} was not made again: {error}") from error
        return await self._store(queue, entries)

    @property
    def _creates(self) -> bool:
        return self._connection.settings.topology is TopologyMode.CREATE

    async def _require(self, topic: str) -> None:
        if not await self._resources.subscribers(topic):
            raise RefusedError(f"no group consumes {topic}, and require_subscriber is set")

    async def _publish(self, topic: str, batch: Sequence[_Outgoing]) -> Sequence[Mapping[str, Any]]:
        answer = await self._connection.call(
            "sns",
            "publish_batch",
            TopicArn=self._resources.topic_arn(topic),
            PublishBatchRequestEntries=[
                self._entry(index, each, "Message") for index, each in enumerate(batch)
            ],
        )
        failed: Sequence[Mapping[str, Any]] = answer.get("Failed", ())
        return failed

    def _entry(self, index: int, each: _Outgoing, body: str) -> dict[str, Any]:
        message, encoded = each.message, each.encoded
        entry: dict[str, Any] = {"Id": str(index), body: encoded.body}
        if encoded.attributes:
            entry["MessageAttributes"] = encoded.attributes
        if self._options.is_fifo:
            # A message without a key waits for no other. A foreign id may be any text.
            key = message.key or message.id.encode(errors="surrogatepass")
            entry["MessageGroupId"] = _WHOLE if self._options.fifo == "topic" else _id(key)
            unique = message.deduplication_id or message.id
            entry["MessageDeduplicationId"] = _id(unique.encode(errors="surrogatepass"))
        elif self._options.fair and message.key:
            entry["MessageGroupId"] = _id(message.key)
        return entry


def _id(value: bytes) -> str:
    """A group or deduplication id; one that SQS does not accept is hashed."""
    text = value.decode("latin-1")
    return text if _ID.fullmatch(text) else hashlib.sha256(value).hexdigest()


def _result(message: Message, failed: Mapping[str, Any] | None) -> PublishError | None:
    if failed is None:
        return None
    code = str(failed.get("Code", ""))
    text = f"message {message.id!r} to {message.topic} was not stored: {code}"
    if failed.get("SenderFault") and not any(word in code for word in _TEMPORARY):
        return PublishRefusedError(f"{text}: {failed.get('Message', '')!s:.300}")
    return PublishError(text)


def _failure(message: Message, error: TransportError) -> PublishError:
    final = isinstance(error, AccessDeniedError | RefusedError)
    kind = PublishRefusedError if final else PublishError
    failure = kind(f"message {message.id!r} to {message.topic} was not stored: {error}")
    failure.__cause__ = error
    return failure
