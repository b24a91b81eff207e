"""The start marks of ordered shards: they name messages that ran alone and did not end.

A message of an ordered shard is never moved, because later ones of its key would overtake it. So
its marks are in a separate queue. Before the holder of the shard's lock consumes the shard, it
takes all messages of that queue and keeps them unacknowledged. If its process dies, the next holder
gets all of them.
"""

from __future__ import annotations

import hashlib

from pamqp.commands import Basic

from protoflow.errors import TransportError
from protoflow.message import Delivery, Message
from protoflow.transports.rabbitmq import frames
from protoflow.transports.rabbitmq.channel import FAILURES, Channel
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.link import describe
from protoflow.transports.rabbitmq.reading import Properties

#: The number of start marks that a message of the queue stands for.
_COUNT = "pf_marks"

Known = dict[str, tuple[int, list[int]]]


class StartMarks:
    """The start marks of the shards that this process consumes.

    Attributes:
        any: whether there are marks; it is read for each message.
    """

    def __init__(self, context: SubscriptionContext) -> None:
        self.any = False
        self._context = context
        self._queues = [*map(context.own.marks, context.own.shards)]
        self._channel: Channel | None = None
        self._known: dict[int, Known] = {}

    async def read(self, shard: int) -> None:
        """Takes the marks of a shard. Raises FAILURES."""
        await self._ensure(shard)

    def count(self, delivery: Delivery) -> int:
        """Returns the number of start marks without an end for a message."""
        known = self._known.get(int(delivery.shard))
        return known.get(identity(delivery.message), (0, []))[0] if known else 0

    async def write(self, delivery: Delivery) -> None:
        """Adds one mark. Raises TransportError."""
        shard, key = int(delivery.shard), identity(delivery.message)
        try:
            channel = await self._ensure()
            count, old = self._known[shard].get(key, (0, []))
            await self._context.put(
                Message(
                    id=key,
                    topic=self._queues[shard],
                    payload=b"",
                    metadata={_COUNT: str(count + 1)},
                    mandatory=True,
                )
            )
            self._known[shard].pop(key, None)
            await self._take(channel, shard)
            await self._acknowledge(old)
        except FAILURES as error:
            raise TransportError(f"start marks of rabbitmq: {describe(error)}") from error

    async def clear(self, delivery: Delivery) -> None:
        """Removes all marks. Raises TransportError."""
        shard, key = int(delivery.shard), identity(delivery.message)
        try:
            await self._ensure()
            _, tags = self._known.get(shard, {}).get(key, (0, []))
            await self._acknowledge(tags)
        except FAILURES as error:
            raise TransportError(f"start marks of rabbitmq: {describe(error)}") from error
        self._known.get(shard, {}).pop(key, None)
        self.any = any(self._known.values())

    async def leave(self) -> None:
        """Leaves the marks to others."""
        channel, self._channel = self._channel, None
        self._known.clear()
        self.any = False
        if channel is not None:
            await channel.leave()

    async def _ensure(self, *shards: int) -> Channel:
        """Takes the marks of these shards; takes all again if their channel has closed."""
        wanted = {*self._known, *shards}
        channel = self._channel
        if channel is None or channel.is_closed:
            channel = self._channel = await self._context.link.channel(confirms=False)
            self._known.clear()
        for shard in sorted(wanted - self._known.keys()):
            self._known[shard] = {}
            await self._take(channel, shard)
        return channel

    async def _take(self, channel: Channel, shard: int) -> None:
        known = self._known[shard]
        while (got := await channel.get(self._queues[shard])) is not None:
            handed, properties, _ = got
            key, marks = _read(properties)
            count, tags = known.get(key, (0, []))
            known[key] = max(count, marks), [*tags, handed[1]]
        self.any = any(self._known.values())

    async def _acknowledge(self, tags: list[int]) -> None:
        channel = self._channel
        if channel is None or not tags:
            return
        channel.send(b"".join(frames.ack(channel.number, tag) for tag in tags))
        # the answer comes after all earlier frames
        await channel.request(Basic.Qos(prefetch_count=0))


def identity(message: Message) -> str:
    """Returns the properties that stay the same at every delivery of a message. A generated id
    differs each time, so it is left out."""
    native = message.headers
    parts = (
        message.id.encode("utf-8", "replace") if native is None or native.identified else b"",
        message.key or b"",
        message.payload or b"",
    )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _read(properties: Properties) -> tuple[str, int]:
    marks = dict(properties.texts).get(_COUNT, "1")
    return properties.message_id or "", int(marks) if marks.isdecimal() and len(marks) < 9 else 1
