"""The consumers of a subscription at the broker: started, looked after, and ended.

Where order is promised a shard has one active consumer over all processes: the one whose
connection holds the shard's lock, an exclusive queue. The argument
`x-single-active-consumer` would do too, but ordering is a delivery policy, and no queue
argument may depend on one. The lock also outlasts the consumer until its work is settled,
and goes with the connection.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

import aiormq.exceptions
from pamqp.commands import Basic
from pamqp.commands import Queue as Methods

from protoflow.spec import Ordering
from protoflow.transport import SubscriptionSettings
from protoflow.transports.rabbitmq.channel import FAILURES, Channel
from protoflow.transports.rabbitmq.link import Link
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.options import RabbitMQOptions
from protoflow.transports.rabbitmq.probe import exists
from protoflow.transports.rabbitmq.session import Session

_logger = logging.getLogger("protoflow.rabbitmq")

#: Before a shard is consumed, for what its last owner had to be back in the queue.
_TAKE_OVER_SECONDS = 0.5

ArriveCallback = Callable[[Session, int, Basic.Deliver, Basic.Properties, bytes], None]


class Intake:
    """Starts the consumers of one subscription.

    Attributes:
        shards: how many queues are consumed.
    """

    def __init__(
        self,
        link: Link,
        prober: Link,
        names: Names,
        settings: SubscriptionSettings,
        options: RabbitMQOptions,
    ) -> None:
        self.shards = 1 if settings.broadcast else names.shards
        self._link = link
        self._prober = prober  # not ours: a connection that sends may be blocked
        self._names = names
        self._settings = settings
        self._options = options
        self._ordered = settings.ordering is not Ordering.NONE and not settings.broadcast
        self._consuming: dict[int, str] = {}
        self._cancelled = False
        self._checked = (0.0, -1)  # when the watchdog looked last, and the arrivals until then

    async def open(self, arrived: ArriveCallback) -> Session:
        """A session without consumers. Raises FAILURES."""
        prefetch = self._options.prefetch or self._settings.max_in_flight
        prefetch = min(max(prefetch // self.shards, 1), 65535)
        channel = await self._link.channel(confirms=False)
        await channel.request(Basic.Qos(prefetch_count=prefetch))
        self._consuming, self._cancelled = {}, False
        self._checked = (asyncio.get_running_loop().time(), -1)
        session = Session(channel, prefetch)

        def deliver(frame: Basic.Deliver, properties: Basic.Properties, body: bytes) -> None:
            arrived(session, int(frame.consumer_tag or 0), frame, properties, body)

        channel.on_deliver, channel.on_cancel = deliver, self._on_cancel
        return session

    async def consume(self, session: Session) -> None:
        """Starts the consumers that may be started. Raises FAILURES."""
        queues = [self._queue(shard) for shard in range(self.shards)]
        if self._settings.broadcast:
            queues = [await self._own_queue(session.channel)]
        session.channel.tap()
        for shard, queue in enumerate(queues):
            await self._consume(session, shard, queue)

    async def tend(self, session: Session) -> None:
        """Looks after the consumers; called every second or so."""
        if self._cancelled:
            _logger.warning("consumer ended by rabbitmq", extra=self._extra())
            await session.channel.leave()
            return
        for shard in range(self.shards):
            if shard not in self._consuming:
                await self._consume(session, shard, self._queue(shard))
        now, (last, arrivals) = asyncio.get_running_loop().time(), self._checked
        if now - last < self._options.watchdog:
            return
        self._checked = (now, session.arrivals)
        if session.arrivals == arrivals and not session.unsettled and await self._waiting(session):
            _logger.warning("messages wait but none come; consuming anew", extra=self._extra())
            await session.channel.leave()

    async def cancel(self, session: Session) -> None:
        """Ends the consumers; what they got stays unsettled."""
        for tag in [*self._consuming]:
            await session.channel.request(Basic.Cancel(consumer_tag=str(tag)))

    async def release(self, session: Session) -> None:
        """Lets another process have the shards."""
        if not self._ordered or not self._consuming:
            return
        channel = await session.channel.sibling()
        for shard in self._consuming:
            await channel.request(Methods.Delete(queue=self._lock(shard)))
        await channel.leave()

    async def _consume(self, session: Session, shard: int, queue: str) -> None:
        if self._ordered and not await self._acquire(session.channel, shard):
            return
        self._consuming[shard] = queue
        await session.channel.request(Basic.Consume(queue=queue, consumer_tag=str(shard)))

    async def _acquire(self, channel: Channel, shard: int) -> bool:
        lock = self._lock(shard)
        try:
            if await exists(self._prober, lock):
                return False
        except FAILURES:
            return False  # publishers are blocked: asked again soon
        beside = await channel.sibling()
        try:
            await beside.request(
                Methods.Declare(queue=lock, exclusive=True, arguments={"x-max-length": 0})
            )
        except aiormq.exceptions.ChannelLockedResource:
            return False  # somebody was quicker
        finally:
            await beside.leave()
        # The lock of a process that died goes before the queue has taken back what that
        # process had: consuming at once would overtake it.
        await asyncio.sleep(_TAKE_OVER_SECONDS)
        return True

    async def _own_queue(self, channel: Channel) -> str:
        names, settings = self._names, self._settings
        # A new name each time: the old one may live until the server misses its connection.
        queue = names.broadcast(settings.topic, settings.group, uuid.uuid4().hex)
        await channel.request(Methods.Declare(queue=queue, exclusive=True, auto_delete=True))
        await channel.request(
            Methods.Bind(
                queue=queue, exchange=names.exchange, routing_key=names.routing_key(settings.topic)
            )
        )
        return queue

    async def _waiting(self, session: Session) -> bool:
        beside = await session.channel.sibling()
        try:
            for queue in self._consuming.values():
                found = await beside.request(Methods.Declare(queue=queue, passive=True))
                if found.message_count:
                    return True
            return False
        finally:
            await beside.leave()

    def _on_cancel(self, _: str) -> None:
        self._cancelled = True

    def _queue(self, shard: int) -> str:
        return self._names.queue(self._settings.topic, self._settings.group, shard)

    def _lock(self, shard: int) -> str:
        return self._names.lock(self._settings.topic, self._settings.group, shard)

    def _extra(self) -> dict[str, str]:
        return {"subscription": self._settings.name}
