"""One topic read by one group."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Collection, Sequence

import aiormq.exceptions
from pamqp.commands import Basic

from protoflow.errors import AuthenticationError, TransportError
from protoflow.ladder import rung
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.spec import Ordering
from protoflow.transport import SubscriptionListener, SubscriptionSettings, TransportSettings
from protoflow.transports.rabbitmq import codec
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.intake import Intake
from protoflow.transports.rabbitmq.link import Backoff, describe
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.ready import Ready
from protoflow.transports.rabbitmq.session import Receipt, Results, Session

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
        max_hold: float,
        redeclare: Callable[[SubscriptionSettings], Awaitable[None]],
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._transport = transport
        self._names = names
        self._intake = intake
        self._redeclare = redeclare
        self._max_hold = min(settings.max_hold, max_hold)
        self._ordered = settings.ordering is not Ordering.NONE
        self._ready = Ready(intake.shards)
        self._waiter: asyncio.Future[None] | None = None
        self._session: Session | None = None
        self._failure: TransportError | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def unsettled(self) -> int:
        """How many deliveries this process has."""
        return len(self._session.unsettled) if self._session is not None else 0

    async def start(self) -> None:
        """Joins the group. Raises TransportError."""
        try:
            session = await self._begin()
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
            if self._failure is not None:
                raise self._failure
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return ()

    def settle(self, settlements: Sequence[Settlement]) -> Results:
        """Settles; results come when the broker has worked them off."""
        future: Results = asyncio.get_running_loop().create_future()
        results = [self._settle(settlement) for settlement in settlements]
        if self._session is not None and SettleResult.DONE in results:
            self._session.resolve(future, results)
        else:
            future.set_result(results)
        return future

    def defer(self, message: Message, delay: float) -> Message | None:
        """The message, addressed to the rung of this group that it waits on."""
        settings, names = self._settings, self._names
        if settings.broadcast or not settings.defers:
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
            if self._session is not None:
                with contextlib.suppress(*FAILURES):
                    await self._leave(self._session)
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
        if session.arrivals and self._ordered:
            # ... a little after the channel has gone, and the next owner must not overtake it.
            await self._transport.clock.sleep(_WORK_OFF_SECONDS)
        await self._intake.release(session)

    def _arrived(
        self,
        session: Session,
        shard: int,
        frame: Basic.Deliver,
        properties: Basic.Properties,
        body: bytes,
    ) -> None:
        message, size = codec.decode(self._settings.topic, properties, body, self._names.owner)
        tag = frame.delivery_tag or 0
        delivery = Delivery(
            message=message,
            deliveries=0 if self._settings.broadcast else codec.deliveries(properties),
            shard=shard,
            position=tag,
            time=codec.sent_at(properties),
            size=size,
        )
        session.arrived(delivery, tag)
        self._ready.append(delivery)
        self._wake()

    def _settle(self, settlement: Settlement) -> SettleResult:
        delivery = settlement.delivery
        receipt: Receipt = delivery.receipt
        session = receipt.session
        if session is not self._session or session.unsettled.get(receipt.tag) is not delivery:
            return SettleResult.LOST
        if settlement.action is Action.ACK:
            session.ack(receipt.tag)
            return SettleResult.DONE
        # A new delivery of the same hand-out, so that the old one is settled.
        failed = settlement.action is Action.NACK
        receipt.handed = False
        renewed = dataclasses.replace(
            delivery, deliveries=delivery.deliveries + (failed and delivery.deliveries > 0)
        )
        session.unsettled[receipt.tag] = renewed
        if failed and settlement.delay > 0:
            # Only where there is no ladder: the delivery waits here, unsettled.
            loop = asyncio.get_running_loop()
            loop.call_later(settlement.delay, self._give_back, renewed)
        else:
            self._give_back(renewed)
        return SettleResult.DONE

    def _give_back(self, delivery: Delivery) -> None:
        receipt: Receipt = delivery.receipt
        session = receipt.session
        if session is not self._session or session.unsettled.get(receipt.tag) is not delivery:
            return
        # It stays with us, before what was handed out after it. Sent back, the broker would
        # put it behind, count it, and most likely hand it to us again.
        self._ready.insert(delivery)
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
        self._session = session  # before anything can arrive
        try:
            await self._intake.consume(session)
        except BaseException:
            self._forget(session)
            await session.channel.leave()
            raise
        return session

    async def _supervise(self, session: Session) -> None:
        backoff = Backoff(self._transport)
        while self._stopping is None:
            await self._tend(session)
            self._forget(session)
            _, reason = session.channel.closed_by_broker or (0, "the connection was lost")
            self._listener.health_changed(False, f"subscription {self._settings.name}: {reason}")
            while self._session is None:
                await backoff.wait()
                try:
                    session = await self._begin()
                except aiormq.exceptions.ChannelAccessRefused as error:
                    self._failure = self._translated(error)
                    self._wake()
                    return
                except (*FAILURES, TransportError) as error:
                    self._listener.health_changed(False, str(self._translated(error)))
            backoff.reset()
            self._listener.health_changed(True, "")

    async def _tend(self, session: Session) -> None:
        """Looks after a session until its channel is closed."""
        closing = session.channel.closing
        try:
            while True:
                pause = _TEND_SECONDS * (0.75 + self._transport.clock.random() / 2)
                await asyncio.wait([closing], timeout=pause)
                if closing.done():
                    return
                try:
                    self._expire(session)
                    await self._intake.tend(session)
                except FAILURES:
                    await session.channel.leave()
                    return
        finally:
            closing.cancel()

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
        self._session = None
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

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
