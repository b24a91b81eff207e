"""The consumers of a subscription at the broker: their start, checks, and end.

With ordering, a shard has one active consumer over all processes: the one whose process holds the
shard's lock. It begins only when the queue has no other consumer: then the queue has taken back the
last owner's messages, and no process with another ordering reads it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable

import aiormq.exceptions
from pamqp.commands import Basic
from pamqp.commands import Queue as Methods

from protoflow.errors import AuthenticationError
from protoflow.transports.rabbitmq.channel import Channel
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.link import describe
from protoflow.transports.rabbitmq.locks import Locks
from protoflow.transports.rabbitmq.reading import Handed, Properties
from protoflow.transports.rabbitmq.session import Session
from protoflow.transports.rabbitmq.start_marks import StartMarks

_logger = logging.getLogger("protoflow.rabbitmq")

#: Seconds between checks of a locked shard while another client still consumes it, and seconds
#: after which this is reported as a problem.
_SOON_SECONDS = 0.05
_OTHERS_SECONDS = 10.0
_FIRST_LOCKS_SECONDS = 0.5

ArriveCallback = Callable[[Session, int, Handed, Properties, bytes], None]


class Consumers:
    """Starts the consumers of one subscription.

    Attributes:
        shards: the number of consumed queues.
        marks: the start marks of an ordered subscription.
        problem: why a locked shard is not consumed, if this takes long.
    """

    def __init__(self, context: SubscriptionContext) -> None:
        self.shards = 1 if context.settings.broadcast else len(context.own.queues)
        self.marks = StartMarks(context) if context.ordered else None
        self.problem: str | None = None
        self._context = context
        self._locks = Locks(context, self.wake) if context.ordered else None
        self._changed = asyncio.Event()
        self._consuming: dict[int, str] = {}
        self._obstructed: dict[int, float] = {}
        self._cancelled = False
        # the time of the watchdog's last check, and the arrivals until then
        self._checked = (0.0, -1)
        self._extra = {"subscription": context.settings.name}

    async def open(self, arrived: ArriveCallback) -> Session:
        """Starts a session without consumers. Raises FAILURES."""
        prefetch = self._context.options.prefetch or self._context.settings.max_in_flight
        prefetch = min(max(prefetch // self.shards, 1), 65535)
        channel = await self._context.link.channel(confirms=False)
        await channel.request(Basic.Qos(prefetch_count=prefetch))
        self._consuming, self._cancelled = {}, False
        self._obstructed, self.problem = {}, None
        self._checked = (asyncio.get_running_loop().time(), -1)
        session = Session(channel, prefetch)

        def deliver(handed: Handed, properties: Properties, body: bytes) -> None:
            arrived(session, int(handed[0]), handed, properties, body)

        channel.on_deliver, channel.on_cancel = deliver, self._on_cancel
        return session

    async def consume(self, session: Session) -> None:
        """Starts the allowed consumers. Raises FAILURES and TransportError."""
        queues = self._context.own.queues
        if self._context.settings.broadcast:
            queues = [await self._own_queue(session.channel)]
        session.channel.tap()
        if self._locks is None:
            for shard, queue in enumerate(queues):
                await self._consume(session, shard, queue)
            return
        await self._locks.compete()
        deadline = asyncio.get_running_loop().time() + _FIRST_LOCKS_SECONDS
        while len(self._consuming) < self.shards:
            await self._consume_held(session, self._locks)
            if asyncio.get_running_loop().time() >= deadline:
                return
            await self.pause(_SOON_SECONDS)

    def wake(self) -> None:
        """Ends a pause."""
        self._changed.set()

    async def pause(self, seconds: float) -> None:
        """Waits; less if a lock was won or lost, or a shard will soon be consumed."""
        if self._obstructed:
            seconds = _SOON_SECONDS
        waiting = asyncio.ensure_future(self._changed.wait())
        try:
            await asyncio.wait([waiting], timeout=seconds)
        finally:
            waiting.cancel()
        self._changed.clear()

    async def check(self, session: Session) -> None:
        """Checks the consumers; it is called about every second. Raises FAILURES."""
        if self._cancelled:
            _logger.warning("consumer ended by rabbitmq", extra=self._extra)
            await session.channel.leave()
            return
        if self._locks is not None:
            if self._locks.lost:
                _logger.warning("a shard's lock was lost", extra=self._extra)
                await session.channel.leave()
                if self.marks is not None:
                    await self.marks.leave()
                return
            self._locks.renew()
            await self._locks.compete()
            await self._consume_held(session, self._locks)
        now, (last, arrivals) = asyncio.get_running_loop().time(), self._checked
        if now - last < self._context.options.watchdog:
            return
        self._checked = (now, session.arrivals)
        if session.arrivals == arrivals and not session.unsettled and await self.waiting(session):
            _logger.warning(
                "waiting messages were not delivered; consuming again", extra=self._extra
            )
            await session.channel.leave()

    async def cancel(self, session: Session) -> None:
        """Ends the consumers; their messages stay unsettled."""
        for tag in [*self._consuming]:
            await session.channel.request(Basic.Cancel(consumer_tag=str(tag)))

    async def release(self) -> None:
        """Lets another process have the shards."""
        if self.marks is not None:
            await self.marks.leave()
        if self._locks is not None:
            await self._locks.leave()

    async def waiting(self, session: Session) -> int:
        """Returns the number of messages in the consumed queues. Raises FAILURES."""
        found = [await session.channel.peek(queue) for queue in self._consuming.values()]
        return sum(messages for messages, _ in found)

    async def _consume_held(self, session: Session, locks: Locks) -> None:
        now = asyncio.get_running_loop().time()
        for shard in range(self.shards):
            if shard in self._consuming or not locks.holds(shard):
                continue
            queue = self._context.own.queue(shard)
            _, consumers = await session.channel.peek(queue)
            if consumers:
                self._obstructed.setdefault(shard, now)
                continue
            if self.marks is not None:
                await self.marks.read(shard)
            self._obstructed.pop(shard, None)
            await self._consume(session, shard, queue)
        late = [shard for shard, since in self._obstructed.items() if now - since > _OTHERS_SECONDS]
        self.problem = (
            f"{self._context.own.queue(late[0])} has other consumers, which do not hold its lock: "
            "stop the processes that run with ordering NONE, and foreign consumers of it"
            if late
            else None
        )

    async def _consume(self, session: Session, shard: int, queue: str) -> None:
        self._consuming[shard] = queue
        await session.channel.request(Basic.Consume(queue=queue, consumer_tag=str(shard)))

    async def _own_queue(self, channel: Channel) -> str:
        names, settings = self._context.names, self._context.settings
        # The name is always new: the old one may live until the server detects the lost connection.
        queue, key = (
            self._context.own.broadcast(uuid.uuid4().hex),
            names.routing_key(settings.topic),
        )
        try:
            await channel.request(Methods.Declare(queue=queue, exclusive=True, auto_delete=True))
            await channel.request(
                Methods.Bind(queue=queue, exchange=names.exchange, routing_key=key)
            )
        except aiormq.exceptions.ChannelAccessRefused as error:
            raise AuthenticationError(
                f"subscription {settings.name}: {describe(error)}; each process of a broadcast "
                "group creates its own queue: grant the user the rights configure, write and "
                f"read on {names.owner}.*, and read on {names.exchange}"
            ) from error
        return queue

    def _on_cancel(self, _: str) -> None:
        self._cancelled = True
        self.wake()
