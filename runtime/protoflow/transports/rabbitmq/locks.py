"""Locks decide which process of a group consumes an ordered shard.

Each shard has a quorum queue with a single active consumer and one message in it. Whoever holds
that message unacknowledged holds the lock: so it is decided by the same consensus that replicates
the messages, and a process learns when the lock is its own. A takeover publishes no message, so an
alarm of the server does not block it. (`x-single-active-consumer` on the shard itself
would do too, but ordering is a delivery policy, and no queue's arguments may depend on one.)

The locks are held on a channel of their own: they outlast a channel of the subscription that
ends, and go with the connection.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

from pamqp.commands import Basic

from protoflow.message import Message
from protoflow.transports.rabbitmq import frames
from protoflow.transports.rabbitmq.channel import Channel
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.reading import Handed, Properties

#: A lock may be returning for this many seconds when it is renewed.
_RENEWING_SECONDS = 10.0


class Locks:
    """The locks of one subscription.

    Args:
        context: the subscription.
        changed: called when a lock was won or lost.

    Attributes:
        lost: whether held locks were lost.
    """

    def __init__(self, context: SubscriptionContext, changed: Callable[[], None]) -> None:
        self.lost = False
        self._context = context
        self._queues = [*map(context.own.lock, context.own.shards)]
        self._renewal = context.options.max_hold / 2
        self._changed = changed
        self._channel: Channel | None = None
        self._competing: set[int] = set()
        self._held: dict[int, tuple[int, float]] = {}
        self._renewing: dict[int, float] = {}

    def holds(self, shard: int) -> bool:
        """Whether this process holds the lock of the shard."""
        return shard in self._held or shard in self._renewing

    async def compete(self) -> None:
        """Requests every lock. Raises FAILURES and TransportError."""
        channel = self._channel
        if channel is None or channel.is_closed:
            channel = await self._open()
        for shard, queue in enumerate(self._queues):
            if shard in self._competing:
                continue
            await self._complete(channel, queue)
            await channel.request(Basic.Consume(queue=queue, consumer_tag=str(shard)))
            self._competing.add(shard)

    def renew(self) -> None:
        """Returns each lock and takes it again, before the server closes the channel because of a
        message that stays unacknowledged for long. No other consumer is active meanwhile."""
        channel = self._channel
        if channel is None or channel.is_closed:
            return
        now = asyncio.get_running_loop().time()
        for shard, (tag, since) in [*self._held.items()]:
            if now - since > self._renewal:
                del self._held[shard]
                self._renewing[shard] = now
                channel.send(frames.requeue(channel.number, tag))
        if any(now - since > _RENEWING_SECONDS for since in self._renewing.values()):
            self._lose()

    async def leave(self) -> None:
        """Releases the shards for other processes."""
        channel, self._channel = self._channel, None
        self._forget()
        if channel is not None:
            await channel.leave()

    async def _open(self) -> Channel:
        self._forget()
        self.lost = False
        channel = await self._context.link.channel(confirms=False)
        await channel.request(Basic.Qos(prefetch_count=1))
        channel.on_deliver, channel.on_cancel = self._won, self._cancelled
        channel.tap()
        channel.closing.add_done_callback(lambda _: self._closed(channel))
        self._channel = channel
        return channel

    async def _complete(self, channel: Channel, queue: str) -> None:
        """Publishes a lock's message if there is none. Two messages, from processes that start at
        once, do no harm: only one consumer is active, and it gets one message."""
        if not any(await channel.peek(queue)):
            message = Message(id=uuid.uuid4().hex, topic=queue, payload=b"", mandatory=True)
            await self._context.put(message)

    def _won(self, handed: Handed, _: Properties, __: bytes) -> None:
        shard = int(handed[0])
        new = shard not in self._renewing
        self._renewing.pop(shard, None)
        self._held[shard] = handed[1], asyncio.get_running_loop().time()
        if new:
            self._changed()

    def _cancelled(self, _: str) -> None:
        self._lose()

    def _closed(self, channel: Channel) -> None:
        if channel is self._channel:
            self._lose()

    def _lose(self) -> None:
        self.lost = self.lost or bool(self._held or self._renewing)
        self._forget()
        channel, self._channel = self._channel, None
        if channel is not None and not channel.is_closed:
            channel.create_task(channel.leave())
        self._changed()

    def _forget(self) -> None:
        self._competing.clear()
        self._held.clear()
        self._renewing.clear()
