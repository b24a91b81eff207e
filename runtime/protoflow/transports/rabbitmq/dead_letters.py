"""The dead letters of RabbitMQ: they are read by consuming and returning them in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from functools import partial

from pamqp.commands import Queue as Methods

from protoflow import wire
from protoflow.error_codes import HELD_DEAD_LETTERS
from protoflow.errors import TransportError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import (
    DeadLetterSources,
    check_names,
    number_of,
    publish_with,
    replay_in_order,
)
from protoflow.transports.rabbitmq import codec, frames
from protoflow.transports.rabbitmq.channel import FAILURES, Channel
from protoflow.transports.rabbitmq.link import Link, describe
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.probe import count, counts
from protoflow.transports.rabbitmq.publisher import Publisher

_BACK_SECONDS = 1.0


class RabbitMQDeadLetterStore:
    """Implements `DeadLetterStore`. A position is an index in the queue, from 1.

    Attributes:
        sources: the subscriptions by dead-letter topic.
        names: the names.
        publisher: publishes replays.
    """

    def __init__(self, link: Link, names: Names, publisher: Publisher) -> None:
        self.sources = DeadLetterSources()
        self.names = names
        self.publisher = publisher
        self._link = link
        # another scan would not see messages that this one has taken
        self._scanning = asyncio.Lock()

    async def count(self, topic: str) -> int:
        """Returns the number of waiting dead letters."""
        return await count(self._link, self.names.dead_letters(topic)) or 0

    @contextlib.asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[RabbitMQScan]:
        """Begins a scan."""
        skipped = number_of(after)
        async with self._channel() as channel:
            waiting = await self._waiting(topic)
            scan = RabbitMQScan(self, channel, topic, waiting)
            try:
                await scan.skip(skipped)
                yield scan
            finally:
                await channel.leave()
                await self._returned(topic, waiting - scan.removed)

    async def _waiting(self, topic: str) -> int:
        """Returns the number of waiting dead letters. Raises TransportError if none waits because
        a consumer takes them: no group consumes this queue."""
        queue = self.names.dead_letters(topic)
        waiting, consumers = await counts(self._link, queue) or (0, 0)
        if consumers and not waiting:
            raise TransportError(
                f"the dead letters of {topic} may be held by another tool, which consumes the "
                f"queue {queue}; stop its consumers and try again",
                code=HELD_DEAD_LETTERS,
            )
        return waiting

    async def clear(self, topic: str) -> int:
        """Removes all dead letters."""
        async with self._channel() as channel:
            if not await self.count(topic):
                return 0
            purged = await channel.request(Methods.Purge(queue=self.names.dead_letters(topic)))
            return int(purged.message_count or 0)

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[Channel]:
        async with self._scanning:
            try:
                channel = await self._link.channel(confirms=False)
                try:
                    yield channel
                finally:
                    await channel.leave()
            except FAILURES as error:
                raise TransportError(f"dead letters of rabbitmq: {describe(error)}") from error

    async def _returned(self, topic: str, expected: int) -> None:
        """Waits until the queue counts the returned messages, which takes a moment. The wait is
        short, because another process may have taken them."""
        deadline = asyncio.get_running_loop().time() + _BACK_SECONDS
        while await self.count(topic) < expected:
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.005)


class RabbitMQScan:
    """Implements `DeadLetterScan`. The queue takes unacknowledged messages back.

    Attributes:
        removed: the number of removed dead letters.
    """

    def __init__(
        self, store: RabbitMQDeadLetterStore, channel: Channel, topic: str, waiting: int
    ) -> None:
        self.removed = 0
        self._store = store
        self._channel = channel
        self._topic = topic
        self._left = waiting

    async def skip(self, number: int) -> None:
        """Skips the first dead letters."""
        while number > 0 and await self._get() is not None:
            number -= 1

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        taken: list[DeadLetterRecord] = []
        while len(taken) < limit and (record := await self._get()) is not None:
            taken.append(record)
        return taken

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes records and acknowledges the confirmed ones."""
        address = partial(self._address, to_origin=to_origin)
        publish = publish_with(self._store.publisher.submit)
        return await replay_in_order(records, address, publish, self.remove)

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Acknowledges records; on a new channel the delivery tag is the position."""
        self.removed += len(records)
        number = self._channel.number
        self._channel.send(b"".join(frames.ack(number, int(each.position)) for each in records))

    async def _get(self) -> DeadLetterRecord | None:
        names = self._store.names
        if self._left <= 0:
            return None
        found = await self._channel.get(names.dead_letters(self._topic))
        self._left = self._left - 1 if found is not None else 0
        if found is None:
            return None
        (_, tag, _, _), properties, body = found
        message, _ = codec.decode(self._topic, properties, body, names.owner)
        return DeadLetterRecord(
            message=message, position=str(tag), time=codec.dead_lettered_at(message)
        )

    async def _address(self, record: DeadLetterRecord, *, to_origin: bool) -> Message:
        """Returns the message to publish. A dead letter never selects a queue by name."""
        store, origin = self._store, None
        if not record.message.metadata.get(wire.PF_ORIGINAL_TOPIC):
            # The broker itself may have written it, because of too many deliveries.
            death = codec.last_death(record.message)
            origin = store.names.group_of(death.queue) if death is not None else None
        message, group = store.sources.replayed(record, to_origin=to_origin, origin=origin)
        check_names(message, group, to_origin=to_origin)
        if to_origin:
            return message
        address = store.names.of(message.topic, group).address
        return replace(message, topic=address, mandatory=True)
