"""One topic read by one group."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

import aiormq.exceptions

from protoflow.contract.ladder import rung
from protoflow.contract.spec import Ordering
from protoflow.errors import AuthenticationError, TransportError
from protoflow.message import Delivery, Message, Settlement
from protoflow.transport.interface import (
    SubscriptionListener,
    SubscriptionSettings,
    TransportSettings,
)
from protoflow.transports.rabbitmq.arriving import Arriving
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.intake import Intake
from protoflow.transports.rabbitmq.isolating import Isolating
from protoflow.transports.rabbitmq.link import Backoff, describe
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.reading import Handed, Properties
from protoflow.transports.rabbitmq.ready import Ready
from protoflow.transports.rabbitmq.session import Results, Session
from protoflow.transports.rabbitmq.settling import Settling

_logger = logging.getLogger("protoflow.rabbitmq")

_TEND_SECONDS = 1.0
_WORK_OFF_SECONDS = 0.1


class RabbitMQSubscription:
    """A subscription; see `protoflow.transport.Subscription`."""

    def __init__(
        self,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        transport: TransportSettings,
        names: Names,
        intake: Intake,
        isolating: Isolating,
        max_hold: float,
        redeclare: Callable[[SubscriptionSettings], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._transport = transport
        self._names = names
        self._intake = intake
        self._isolating = isolating
        self._redeclare = redeclare
        self._max_hold = min(settings.max_hold, max_hold)
        self._ordered = settings.ordering is not Ordering.NONE
        self._settling = Settling(self._give_out)
        self._arriving = Arriving(settings, names, intake.marks)
        self._ready = Ready(intake.shards)
        self._waiter: asyncio.Future[None] | None = None
        self._problem: str | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def unsettled(self) -> int:
        """How many deliveries this process has."""
        here = len(self._settling.session.unsettled) if self._settling.session is not None else 0
        return here + self._isolating.held

    async def start(self) -> None:
        """Joins the group. Raises TransportError."""
        try:
            session = await self._begin()
            await self._isolating.begin()
        except FAILURES as error:
            raise self._translated(error) from error
        self._supervisor = asyncio.create_task(self._supervise(session))

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """The next deliveries, waiting for one."""
        while self._stopping is None:
            if batch := self._ready.take(max_messages, max_bytes):
                for delivery in batch:
                    delivery.receipt.handed = True
                return batch
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return ()

    def settle(self, settlements: Sequence[Settlement]) -> Results:
        """Settles; results come when the broker has worked them off."""
        if self._isolating.used:
            return self._isolating.settle(settlements, self._settling.settle)
        return self._settling.settle(settlements)

    def defer(self, message: Message, delay: float) -> Message | None:
        """The message, addressed to the rung of this group that it waits on."""
        settings, names = self._settings, self._names
        if settings.broadcast or not settings.needs_broker_retry:
            return None
        address = (
            names.rung(settings.topic, settings.group, rung(self._transport.ladder, delay))
            if delay > 0
            else names.to_group(settings.topic, settings.group)
        )
        return dataclasses.replace(message, topic=address, delay=0.0, mandatory=True)

    def pause(self, shards: Collection[str | int]) -> None:
        """Hands out nothing more of these shards; the prefetch bounds what gathers."""
        self._ready.pause(shards)

    def resume(self, shards: Collection[str | int]) -> None:
        """Ends `pause`."""
        self._ready.resume(shards)
        self._wake()

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `protoflow.transport.Isolation`."""
        return await self._isolating.isolate(delivery, self._settling.settle)

    async def mark(self, delivery: Delivery) -> None:
        """See `protoflow.transport.Isolation`."""
        await self._isolating.mark(delivery)

    async def clear(self, delivery: Delivery) -> None:
        """See `protoflow.transport.Isolation`."""
        await self._isolating.clear(delivery)

    async def available(self) -> int | None:
        """See `protoflow.transport.Availability`."""
        session = self._settling.session
        if session is None:
            return None
        try:
            return len(self._ready) + await self._intake.waiting(session)
        except FAILURES:
            return None

    async def stop(self) -> None:
        """Ends the consumers, gives back what is unsettled, then leaves."""
        if self._stopping is not None:
            await asyncio.shield(self._stopping)
            return
        self._stopping = asyncio.get_running_loop().create_future()
        self._wake()
        try:
            if self._supervisor is not None:
                self._supervisor.cancel()
                await asyncio.gather(self._supervisor, return_exceptions=True)
            try:
                await self._isolating.end()
                if self._settling.session is not None:
                    await self._leave(self._settling.session)
            except (*FAILURES, TransportError) as error:
                _logger.info("the broker did not see the end of a subscription: %s", error)
        finally:
            self._stopping.set_result(None)

    async def _leave(self, session: Session) -> None:
        if not self._ordered:
            # Where order counts the consumer ends with its channel: what a consumer that was
            # cancelled before had unsettled comes back shuffled, beyond 32 messages.
            await self._intake.cancel(session)
        self._ready.clear()
        if not self._ordered:
            session.requeue_all()
        await session.settled()
        if session.arrivals:
            # The queue works off acknowledgements a little after the channel has taken them;
            # with a channel that closes before, RabbitMQ forgets those (seen with 3.10).
            await self._transport.clock.sleep(_WORK_OFF_SECONDS)
        # A channel that closes gives back in order; nack does not, beyond 32 messages.
        await session.channel.leave()
        await self._intake.release()

    def _arrived(
        self, session: Session, shard: int, handed: Handed, properties: Properties, body: bytes
    ) -> None:
        delivery = self._arriving.delivery(shard, handed, properties, body)
        session.arrived(delivery, handed[1])
        self._ready.append(delivery)
        self._wake()

    async def _begin(self) -> Session:
        """A session that consumes. Raises FAILURES or TransportError."""
        try:
            return await self._try()
        except aiormq.exceptions.ChannelNotFoundEntity:
            # The server lost the queue, or somebody deleted it.
            await self._redeclare(self._settings)
            return await self._try()

    async def _try(self) -> Session:
        session = await self._intake.open(self._arrived)
        self._settling.session = session  # before anything can arrive
        try:
            await self._intake.consume(session)
        except BaseException:
            self._forget(session)
            await session.channel.leave()
            raise
        return session

    async def _supervise(self, session: Session) -> None:
        """Looks after the subscription until it is stopped. Nothing ends it: what is refused
        today may be granted tomorrow."""
        backoff = Backoff(self._transport)
        while self._stopping is None:
            await self._tend(session)
            self._forget(session)
            _, reason = session.channel.closed_by_broker or (0, "the connection was lost")
            self._tell(f"subscription {self._settings.name}: {reason}")
            while self._settling.session is None:
                await backoff.wait()
                try:
                    session = await self._begin()
                except Exception as error:
                    self._tell(str(self._translated(error)))
            backoff.reset()
            self._tell(None)

    async def _tend(self, session: Session) -> None:
        """Looks after a session until its channel is closed."""
        channel = session.channel
        channel.closing.add_done_callback(lambda _: self._intake.wake())
        while not channel.is_closed:
            await self._intake.pause(_TEND_SECONDS * (0.75 + self._transport.clock.random() / 2))
            if channel.is_closed:
                return
            try:
                self._expire(session)
                await self._intake.tend(session)
                await self._isolating.tend(self._max_hold)
                self._tell(self._intake.problem)
            except Exception as error:
                _logger.info("subscription %s begins anew: %s", self._settings.name, error)
                await channel.leave()
                return

    def _tell(self, problem: str | None) -> None:
        """Tells the listener of changes only."""
        before, self._problem = self._problem, problem
        if (before is None) != (problem is None):
            self._listener.health_changed(problem is None, problem or "")

    def _expire(self, session: Session) -> None:
        """Gives up what was unsettled for too long, before the server ends the channel."""
        limit = asyncio.get_running_loop().time() - self._max_hold
        expired = []
        for delivery in session.unsettled.values():
            if delivery.receipt.since > limit:
                break
            expired.append(delivery)
        if expired and self._ordered:
            raise TimeoutError("unsettled for too long")  # all goes back, in order
        for delivery in expired:
            session.requeue(delivery.receipt.tag)
            self._ready.discard(delivery)
        if lost := [delivery for delivery in expired if delivery.receipt.handed]:
            self._listener.deliveries_lost(lost)

    def _forget(self, session: Session) -> None:
        """The broker gives to others, or to us anew, what this session had."""
        self._settling.session = None
        self._ready.clear()
        unsettled, session.unsettled = session.unsettled, {}
        if handed := [each for each in unsettled.values() if each.receipt.handed]:
            self._listener.deliveries_lost(handed)

    def _translated(self, error: BaseException) -> TransportError:
        if isinstance(error, TransportError):
            return error
        text = f"subscription {self._settings.name}: {describe(error)}"
        if isinstance(error, aiormq.exceptions.ChannelAccessRefused):
            return AuthenticationError(f"{text}; grant the user the right to read")
        return TransportError(text)

    def _give_out(self, delivery: Delivery) -> None:
        # It stays with us, before what was handed out after it. Sent back, the broker would
        # put it behind, count it, and most likely hand it to us again.
        self._ready.insert(delivery)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
