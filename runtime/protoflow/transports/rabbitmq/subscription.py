"""One topic read by one group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

import aiormq.exceptions

from protoflow.contract.spec import Ordering
from protoflow.errors import AuthenticationError, TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transport.kit.health_reporter import HealthReporter
from protoflow.transport.kit.ready_queue import ReadyQueue
from protoflow.transport.kit.supervisor import Supervisor
from protoflow.transports.rabbitmq.arriving import Arriving
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.consumers import Consumers
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.isolation import Isolation
from protoflow.transports.rabbitmq.link import describe, new_backoff
from protoflow.transports.rabbitmq.reading import Handed, Properties
from protoflow.transports.rabbitmq.retry_delays import deferred
from protoflow.transports.rabbitmq.session import Results, Session

_logger = logging.getLogger("protoflow.rabbitmq")

_CHECK_SECONDS = 1.0
_WORK_OFF_SECONDS = 0.1


class RabbitMQSubscription:
    """A subscription; see `protoflow.transport.Subscription`."""

    def __init__(
        self,
        context: SubscriptionContext,
        redeclare: Callable[[SubscriptionSettings], Awaitable[None]],
    ) -> None:
        self.settings = context.settings
        self._context = context
        self._redeclare = redeclare
        self._consumers = Consumers(context)
        self._isolation = Isolation(context, self._consumers.marks)
        self._arriving = Arriving(context, self._consumers.marks)
        self._max_hold = min(self.settings.max_hold, context.options.max_hold)
        self._ordered = self.settings.ordering is not Ordering.NONE
        self._session: Session | None = None
        self._ready = ReadyQueue()
        self._health = HealthReporter(context.listener)
        self._stopping: asyncio.Future[None] | None = None
        self._supervisor = Supervisor(
            self._begin,
            self._watch,
            up=lambda _: self._health.set(self, None),
            down=lambda reason: self._health.set(self, reason),
            clock=context.transport.clock,
            backoff=new_backoff(context.transport.clock),
        )

    @property
    def unsettled(self) -> int:
        """The number of unsettled deliveries in this process."""
        here = len(self._session.unsettled) if self._session is not None else 0
        return here + self._isolation.held

    async def start(self) -> None:
        """Joins the group. Raises TransportError."""
        session = await self._begin()
        try:
            await self._isolation.begin()
        except FAILURES as error:
            raise self._translated(error) from error
        self._supervisor.start(session)

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """Returns the next deliveries; waits for the first one."""
        batch = await self._ready.receive(max_messages, max_bytes)
        for delivery in batch:
            delivery.receipt.handed = True
        return batch

    def settle(self, settlements: Sequence[Settlement]) -> Results:
        """Settles; results are set when the broker has processed them."""
        if self._isolation.used:
            return self._isolation.settle(settlements, self._settle)
        return self._settle(settlements)

    def _settle(self, settlements: Sequence[Settlement]) -> Results:
        if self._session is not None:
            return self._session.settle(settlements, self._ready.put_back)
        lost: Results = asyncio.get_running_loop().create_future()
        lost.set_result([SettleResult.LOST] * len(settlements))
        return lost

    def defer(self, message: Message, delay: float) -> Message | None:
        """See `retry_delays`."""
        return deferred(self._context, message, delay)

    def pause(self, shards: Collection[str | int]) -> None:
        """Hands out no messages of these shards; the prefetch limits the waiting ones."""
        self._ready.pause(shards)

    def resume(self, shards: Collection[str | int]) -> None:
        """Ends `pause`."""
        self._ready.resume(shards)

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `protoflow.transport.Isolation`."""
        return await self._isolation.isolate(delivery, self._settle)

    async def mark(self, delivery: Delivery) -> None:
        """See `protoflow.transport.Isolation`."""
        await self._isolation.mark(delivery)

    async def clear(self, delivery: Delivery) -> None:
        """See `protoflow.transport.Isolation`."""
        await self._isolation.clear(delivery)

    async def available(self) -> int | None:
        """See `protoflow.transport.Availability`."""
        session = self._session
        if session is None:
            return None
        try:
            return len(self._ready) + await self._consumers.waiting(session)
        except FAILURES:
            return None

    async def stop(self) -> None:
        """Ends the consumers, gives back unsettled messages, and leaves."""
        if self._stopping is not None:
            await asyncio.shield(self._stopping)
            return
        self._stopping = asyncio.get_running_loop().create_future()
        self._ready.close()
        try:
            await self._supervisor.stop()
            try:
                await self._isolation.end()
                if self._session is not None:
                    await self._leave(self._session)
            except (*FAILURES, TransportError) as error:
                _logger.info(
                    "the broker did not see the end of a subscription", extra={"error": str(error)}
                )
        finally:
            self._stopping.set_result(None)

    async def _leave(self, session: Session) -> None:
        if not self._ordered:
            # With ordering, the consumer ends with its channel: after a cancelled consumer,
            # unsettled messages would return in another order beyond 32 messages.
            await self._consumers.cancel(session)
        self._ready.clear()
        if not self._ordered:
            session.requeue_all()
        await session.settled()
        if session.arrivals:
            # The queue processes acknowledgements a little after the channel; if the channel closes
            # before, RabbitMQ forgets them (seen with 3.10).
            await self._context.transport.clock.sleep(_WORK_OFF_SECONDS)
        # A closing channel gives back in order; nack does not, beyond 32 messages.
        await session.channel.leave()
        await self._consumers.release()

    def _arrived(
        self, session: Session, shard: int, handed: Handed, properties: Properties, body: bytes
    ) -> None:
        delivery = self._arriving.delivery(shard, handed, properties, body)
        session.arrived(delivery, handed[1])
        self._ready.append(delivery)

    async def _begin(self) -> Session:
        """Starts a session that consumes. Raises TransportError."""
        try:
            try:
                return await self._try()
            except aiormq.exceptions.ChannelNotFoundEntity:
                # The server lost the queue, or an operator deleted it.
                await self._redeclare(self.settings)
                return await self._try()
        except FAILURES as error:
            raise self._translated(error) from error

    async def _try(self) -> Session:
        session = await self._consumers.open(self._arrived)
        self._session = session  # before any message can arrive
        try:
            await self._consumers.consume(session)
        except BaseException:
            self._forget(session)
            await session.channel.leave()
            raise
        return session

    async def _watch(self, session: Session) -> str:
        """Checks a session until its channel is closed. Returns the reason."""
        channel = session.channel
        channel.closing.add_done_callback(lambda _: self._consumers.wake())
        while not channel.is_closed:
            await self._consumers.pause(
                _CHECK_SECONDS * (0.75 + self._context.transport.clock.random() / 2)
            )
            if channel.is_closed:
                break
            try:
                self._expire(session)
                await self._consumers.check(session)
                await self._isolation.check(self._max_hold)
                self._health.set(self, self._consumers.problem)
            except Exception as error:
                _logger.info(
                    "a subscription began again",
                    extra={"subscription": self.settings.name, "error": str(error)},
                )
                await channel.leave()
                break
        self._forget(session)
        _, reason = channel.closed_by_broker or (0, "the connection was lost")
        return f"subscription {self.settings.name}: {reason}"

    def _expire(self, session: Session) -> None:
        """Gives up messages that were unsettled for too long, before the server closes the
        channel."""
        limit = asyncio.get_running_loop().time() - self._max_hold
        expired = []
        for delivery in session.unsettled.values():
            if delivery.receipt.since > limit:
                break
            expired.append(delivery)
        if expired and self._ordered:
            raise TimeoutError("unsettled for too long")  # all messages return in order
        for delivery in expired:
            session.requeue(delivery.receipt.tag)
        self._ready.withdraw(expired)
        if lost := [delivery for delivery in expired if delivery.receipt.handed]:
            self._context.listener.deliveries_lost(lost)

    def _forget(self, session: Session) -> None:
        """Forgets a session's messages, which the broker delivers again."""
        self._session = None
        self._ready.clear()
        unsettled, session.unsettled = session.unsettled, {}
        if handed := [each for each in unsettled.values() if each.receipt.handed]:
            self._context.listener.deliveries_lost(handed)

    def _translated(self, error: BaseException) -> TransportError:
        if isinstance(error, TransportError):
            return error
        text = f"subscription {self.settings.name}: {describe(error)}"
        if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
            return AuthenticationError(f"{text}; grant the user the right to read")
        return TransportError(text)
