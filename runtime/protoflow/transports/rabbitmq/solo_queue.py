"""The solo queue of an unordered group: messages that must run alone in a process.

Messages have no permanent identity here, so a suspect is moved to a queue that is read by
`basic.get`, one message at a time, only while nothing else runs in the process. Its start marks are
a header. To write or clear a mark, the message is published again, the old copy is acknowledged,
and the new copy is taken; messages before it move behind it. So the broker's own count, which lost
connections also raise, is not used. Settlements and further takes wait until this has ended,
because between the two publications no copy is held.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Callable, Sequence

from pamqp.commands import Basic

from protoflow import wire
from protoflow.error_codes import LEASE_LOST
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transports.rabbitmq import codec
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.context import SubscriptionContext
from protoflow.transports.rabbitmq.link import describe
from protoflow.transports.rabbitmq.probe import count
from protoflow.transports.rabbitmq.session import Session

_logger = logging.getLogger("protoflow.rabbitmq")

#: Distinguishes publications of the same message to the solo queue.
_TOKEN = "pf_solo"  # noqa: S105  not a password
#: The number of start marks.
_MARKS = "pf_marks"
_REMEMBERED = 1000


class SoloQueue:
    """The solo queue of one subscription.

    Args:
        context: the subscription.
        lost: called with the held deliveries when their channel closed.

    Attributes:
        session: the channel that holds the messages that run alone; None before the first one.
    """

    def __init__(self, context: SubscriptionContext, lost: Callable[[Delivery], None]) -> None:
        self.session: Session | None = None
        self._context = context
        self._queue = context.own.solo
        self._lost = lost
        self._alive: dict[str, int] = {}
        self._turn = asyncio.Lock()

    @property
    def held(self) -> Sequence[Delivery]:
        """The deliveries that run alone here."""
        return [*self.session.unsettled.values()] if self.session is not None else []

    def holds(self, delivery: Delivery) -> bool:
        """Whether a delivery is held here."""
        return self.session is not None and self.session.holds(delivery)

    async def waiting(self) -> int:
        """Returns the number of messages that wait to run alone. Raises TransportError."""
        return await count(self._context.link, self._queue) or 0

    async def move(self, delivery: Delivery) -> None:
        """Publishes the message of a delivery to the queue. Raises TransportError."""
        attempts = str(delivery.failures), f"{delivery.first_failure:.3f}"
        await self._put(delivery.message, *attempts, token=uuid.uuid4().hex)

    async def take(self) -> Delivery | None:
        """Takes the first message. Raises TransportError."""
        async with self._turn:
            try:
                session = await self._open()
                return await self._get(session)
            except FAILURES as error:
                raise TransportError(f"queue {self._queue}: {describe(error)}") from error

    async def write(self, delivery: Delivery, marks: int) -> None:
        """Sets the number of start marks of a held message. Raises TransportError."""
        async with self._turn:
            if delivery.receipt.marks == marks or not self.holds(delivery):
                return
            try:
                await self._rewrite(delivery, marks)
            except FAILURES as error:
                raise TransportError(f"queue {self._queue}: {describe(error)}") from error

    async def settle(self, settlements: Sequence[Settlement]) -> list[SettleResult]:
        """Settles held deliveries. A message that is given back goes to the group's normal
        queue."""
        async with self._turn:
            return [await self._settle(settlement) for settlement in settlements]

    async def give_back(self) -> None:
        """Gives held messages back because the process ends normally; then leaves."""
        async with self._turn:
            for delivery in self.held:
                attempts = delivery.failures, delivery.first_failure
                await self._settle(Settlement(delivery, Action.RELEASE, 0.0, *attempts))
            if self.session is not None:
                await self.session.channel.leave()

    async def drain(self) -> None:
        """Gives all messages back to the group's normal queue. Raises TransportError."""
        while (delivery := await self.take()) is not None:
            attempt, first = _attempts(delivery.message)
            await self._put(delivery.message, attempt, first)
            await self.settle((Settlement(delivery),))

    def expire(self, limit: float) -> None:
        """Gives up messages held since before `limit`, before the server closes the channel."""
        session = self.session
        if session is not None and any(each.receipt.since < limit for each in self.held):
            session.channel.create_task(session.channel.leave())

    async def _settle(self, settlement: Settlement) -> SettleResult:
        delivery = settlement.delivery
        if not self.holds(delivery):
            return SettleResult.LOST
        if settlement.action is not Action.ACK:
            attempts = str(settlement.failures), f"{settlement.first_failure:.3f}"
            try:
                await self._put(delivery.message, *attempts)
            except TransportError as error:
                _logger.warning("a message was not given back", extra={"error": str(error)})
                return SettleResult.UNKNOWN
            if not self.holds(delivery):
                return SettleResult.LOST
        session: Session = delivery.receipt.session
        session.ack(delivery.receipt.tag)
        return await session.settled()

    async def _rewrite(self, delivery: Delivery, marks: int) -> None:
        session: Session = delivery.receipt.session
        token = uuid.uuid4().hex
        attempts = _attempts(delivery.message)
        await self._put(delivery.message, *attempts, token=token, marks=marks)
        if not self.holds(delivery):
            raise TransportError(
                f"queue {self._queue}: the channel of the message was lost", code=LEASE_LOST
            )
        tag = delivery.receipt.tag
        session.ack(tag)
        await session.settled()
        while (found := await self._get(session)) is not None:
            if found.receipt.token == token:
                del session.unsettled[found.receipt.tag]
                delivery.receipt = found.receipt
                session.unsettled[found.receipt.tag] = delivery
                return
            # Messages before it move behind it.
            old, attempts = found.receipt, _attempts(found.message)
            await self._put(found.message, *attempts, token=old.token, marks=old.marks)
            session.ack(old.tag)
        self._lost(delivery)  # another process took it first, and runs it

    async def _put(
        self,
        message: Message,
        attempt: str,
        first_failure: str,
        *,
        token: str | None = None,
        marks: int = 0,
    ) -> None:
        """Publishes a message to the solo queue or, without a token, to the group. Raises
        TransportError."""
        # Values from the solo queue are trusted, so the message only contains values that this
        # process knows.
        metadata = {
            name: text
            for name, text in message.metadata.items()
            if not name.startswith(wire.PF_PREFIX)
        }
        metadata |= {
            wire.PF_GROUP: self._context.settings.group,
            wire.PF_ATTEMPT: attempt,
            wire.PF_FIRST_FAILURE: first_failure,
            wire.PF_ORIGINAL_TOPIC: message.topic,
        }
        if token is not None:
            metadata |= {_TOKEN: token, _MARKS: str(marks)}
        topic = self._queue if token is not None else self._context.own.address
        await self._context.put(
            dataclasses.replace(message, topic=topic, metadata=metadata, delay=0.0, mandatory=True)
        )

    async def _get(self, session: Session) -> Delivery | None:
        got = await session.channel.get(self._queue)
        if got is None:
            return None
        (_, tag, again, _), properties, body = got
        message, size = codec.decode(
            self._context.settings.topic, properties, body, self._context.names.owner
        )
        metadata = dict(message.metadata)
        token, marks = metadata.pop(_TOKEN, ""), metadata.pop(_MARKS, "0")
        delivery = Delivery(
            message=dataclasses.replace(message, metadata=metadata),
            deliveries=codec.deliveries(properties, again),
            position=tag,
            time=codec.sent_at(properties),
            size=size,
            own_place=True,
            suspect=True,
            unreadable=properties.problem,
        )
        session.arrived(delivery, tag)
        receipt = delivery.receipt
        receipt.handed, receipt.token = True, token
        receipt.marks = int(marks) if marks.isdecimal() and len(marks) < 9 else 0
        receipt.marks = self._alive.pop(token, receipt.marks)
        return delivery

    async def _open(self) -> Session:
        if self.session is not None and not self.session.channel.is_closed:
            return self.session
        channel = await self._context.link.channel(confirms=False)
        await channel.request(Basic.Qos(prefetch_count=1))
        channel.tap()
        session = self.session = Session(channel, 1)
        channel.closing.add_done_callback(lambda _: self._ended(session))
        return session

    def _ended(self, session: Session) -> None:
        """The channel closed although this process lives: the mark of its message is invalid."""
        unsettled, session.unsettled = session.unsettled, {}
        for delivery in unsettled.values():
            if len(self._alive) >= _REMEMBERED:
                del self._alive[next(iter(self._alive))]
            receipt = delivery.receipt
            self._alive[receipt.token] = max(receipt.marks - 1, 0)
            self._lost(delivery)


def _attempts(message: Message) -> tuple[str, str]:
    """Returns the attempts and the first failure, as the message names them."""
    metadata = message.metadata
    return metadata.get(wire.PF_ATTEMPT, "0"), metadata.get(wire.PF_FIRST_FAILURE, "0")
