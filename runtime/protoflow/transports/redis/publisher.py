"""Publishes messages in batches: while one is sent to a stream, the next is collected."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from protoflow.error_codes import NO_SUBSCRIBER, NOT_OPEN
from protoflow.errors import (
    AuthenticationError,
    PublishError,
    PublishRefusedError,
    TransportError,
)
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.redis import names
from protoflow.transports.redis.connection import RedisConnection
from protoflow.transports.redis.records import encode
from protoflow.transports.redis.scripts import PUBLISH, TRIM
from protoflow.transports.redis.topics import Topics

#: The most messages and bytes of one call; a larger message is published alone.
_MOST, _MOST_BYTES = 500, 4 * 1024 * 1024
_NOBODY: Final = b"NOGROUP"


class _Outgoing(NamedTuple):
    """A message that waits to be sent, or was sent and is not confirmed."""

    message: Message
    fields: list[Any]
    size: int
    submission: Submission
    place: int

    def arguments(self) -> list[Any]:
        """Returns the script's arguments: number of fields, delay in ms, and fields."""
        return [len(self.fields), math.ceil(self.message.delay * 1000), *self.fields]


class RedisPublisher:
    """Publishes in the order of `submit`."""

    def __init__(self, connection: RedisConnection, topics: Topics) -> None:
        self._connection = connection
        self._topics = topics
        self._demand = "require" if connection.settings.require_subscriber else ""
        self._queue: list[_Outgoing] = []
        self._sending: asyncio.Task[None] | None = None
        self._written: set[str] = set()

    def submit(
        self, messages: Sequence[Message], group: str = ""
    ) -> asyncio.Future[Sequence[PublishError | None]]:
        """See `Transport.submit`. With a `group`, only this group receives the messages."""
        submission = Submission(len(messages))
        limit = self._connection.options.max_message_bytes
        sources = self._connection.settings.sources or None
        for index, message in enumerate(messages):
            try:
                if sources is not None and (place := sources.place(message.topic)):
                    raise PublishRefusedError(
                        f"message {message.id!r}: {message.topic} is the stream {place} of other "
                        "programs, whose entries have a form of their own; publish with them"
                    )
                # A dead letter may be larger than its message, because it has more metadata.
                fields, size = encode(message, limit * (1 + message.mandatory), group)
            except PublishRefusedError as error:
                submission.done(index, error)
                continue
            self._queue.append(_Outgoing(message, fields, size, submission, index))
        if self._queue and self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send_all())
        return submission.future

    async def close(self) -> None:
        """Sends all submitted messages. The caller must set a time limit."""
        if (sending := self._sending) is not None:
            try:
                await asyncio.wait([sending])
            finally:
                sending.cancel()

    async def trim(self) -> None:
        """Limits topics without groups, if messages were published to them since the last call."""
        written, self._written = self._written, set()
        most = self._connection.options.retained_messages
        for stream in written:
            await self._connection.call(TRIM, stream, most)

    async def _send_all(self) -> None:
        queue: list[_Outgoing] = []
        try:
            while self._queue:
                queue, self._queue = self._queue, []
                by_topic: dict[str, list[_Outgoing]] = defaultdict(list)
                for each in queue:
                    by_topic[each.message.topic].append(each)
                sends = [self._send_topic(topic, items) for topic, items in by_topic.items()]
                await (sends[0] if len(sends) == 1 else asyncio.gather(*sends))
        finally:
            self._sending = None
            for each in (*queue, *self._queue):  # cancelled: the results are unknown
                each.submission.done(
                    each.place, PublishError("the transport was closed", code=NOT_OPEN)
                )
            self._queue = []

    async def _send_topic(self, topic: str, items: Sequence[_Outgoing]) -> None:
        try:
            shards = await self._topics.shards(topic)
        except TransportError as error:
            return _fail(items, error)
        if shards == 1:
            return await self._send(names.stream(self._topics.prefix, topic, 0), items)
        by_shard: dict[int, list[_Outgoing]] = defaultdict(list)
        for each in items:
            by_shard[names.shard_of(each.message, shards)].append(each)
        await asyncio.gather(
            *(
                self._send(names.stream(self._topics.prefix, topic, shard), of_shard)
                for shard, of_shard in by_shard.items()
            )
        )
        return None

    async def _send(self, stream: str, items: Sequence[_Outgoing]) -> None:
        start = 0
        while start < len(items):
            arguments: list[Any] = [self._demand]
            size, stop = 0, start
            while stop < len(items) and stop - start < _MOST:
                size += items[stop].size
                if size > _MOST_BYTES and stop > start:
                    break
                arguments += items[stop].arguments()
                stop += 1
            lot, start = items[start:stop], stop
            self._written.add(stream)
            try:
                answers = await self._connection.call(PUBLISH, stream, *arguments)
            except TransportError as error:
                _fail(lot, error)
            else:
                for each, answer in zip(lot, answers, strict=True):
                    each.submission.done(each.place, _result(each.message, answer))


def _result(message: Message, answer: bytes) -> PublishError | None:
    if not answer:
        return None
    if answer == _NOBODY:
        return PublishRefusedError(
            f"no group consumes {message.topic}, and require_subscriber is set", code=NO_SUBSCRIBER
        )
    text = answer.decode(errors="replace")
    kind = PublishRefusedError if "NOPERM" in text else PublishError
    return kind(f"message {message.id!r} to {message.topic} was not written: {text}")


def _fail(items: Sequence[_Outgoing], error: TransportError) -> None:
    kind = PublishRefusedError if isinstance(error, AuthenticationError) else PublishError
    for each in items:
        failure = kind(f"message {each.message.id!r} was not written: {error}")
        failure.__cause__ = error
        each.submission.done(each.place, failure)
