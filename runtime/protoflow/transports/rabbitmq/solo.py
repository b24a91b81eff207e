"""The solo queue of an unordered group: messages that are to be run alone in a process.

Messages have no identity that lasts here, so a suspect is moved: to a queue that is read by
`basic.get`, one message at a time, only while nothing else runs in the process. So a message of it
that is handed out again was running alone when its process died, and the broker's own count is the
number of its start marks. A count that rose because a connection was lost, and not the process, is
no mark: the process remembers such messages, and publishes them afresh.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import uuid
from collections.abc import Callable, Sequence

from pamqp.commands import Basic

from protoflow import wire
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transports.rabbitmq import codec
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.link import Link, describe
from protoflow.transports.rabbitmq.locks import PublishCallback
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.probe import count
from protoflow.transports.rabbitmq.session import Session

_logger = logging.getLogger("protoflow.rabbitmq")

#: Tells one publication to the solo queue from another of the same message.
_TOKEN = "pf_solo"  # noqa: S105  not a password
_REMEMBERED = 1000


class Solo:
    """The solo queue of one subscription.

    Args:
        link: the consumer's connection.
        publish: publishes one message.
        names: the names.
        topic: the topic, and
        group: the group.
        lost: told what was held when its channel ended.

    Attributes:
        session: the channel that holds what runs alone; None before the first.
    """

    def __init__(
        self,
        link: Link,
        publish: PublishCallback,
        names: Names,
        topic: str,
        group: str,
        lost: Callable[[Delivery], None],
    ) -> None:
        self.session: Session | None = None
        self._link = link
        self._publish = publish
        self._owner = names.owner
        self._topic = topic
        self._group = group
        self._queue = names.solo(topic, group)
        self._lost = lost
        self._flapped: dict[str, None] = {}

    @property
    def held(self) -> Sequence[Delivery]:
        """What runs alone here."""
        return [*self.session.unsettled.values()] if self.session is not None else []

    async def waiting(self) -> int:
        """How many messages wait to be run alone. Raises TransportError."""
        return await count(self._link, self._queue) or 0

    async def move(self, delivery: Delivery) -> None:
        """Publishes the message of a delivery to the queue. Raises TransportError."""
        await self._put(delivery.message, *_told(delivery.failures, delivery.first_failure))

    async def take(self) -> tuple[Delivery, int] | None:
        """The first message, and how many start marks it has. Raises TransportError."""
        try:
            return await self._take()
        except FAILURES as error:
            raise TransportError(f"queue {self._queue}: {describe(error)}") from error

    def marks(self, delivery: Delivery) -> int | None:
        """How many start marks a delivery has that is held here; None: it is not."""
        session = self.session
        if session is None or session.unsettled.get(delivery.receipt.tag) is not delivery:
            return None
        return delivery.deliveries - 1 if delivery.receipt.session is session else None

    async def settle(self, settlements: Sequence[Settlement]) -> list[SettleResult]:
        """Settles what is held here."""
        return [await self._settle(settlement) for settlement in settlements]

    async def return_to(self, address: str, delivery: Delivery) -> None:
        """Publishes what is held to an address of the group, and removes it here. Raises
        TransportError."""
        attempt = delivery.message.metadata.get(wire.PF_ATTEMPT, "0")
        first = delivery.message.metadata.get(wire.PF_FIRST_FAILURE, "0")
        await self._put(delivery.message, attempt, first, address)
        await self._settle(Settlement(delivery))

    async def give_back(self) -> None:
        """Publishes afresh what is held, for the process ends in order; then leaves."""
        for delivery in self.held:
            settlement = Settlement(
                delivery, Action.RELEASE, 0.0, delivery.failures, delivery.first_failure
            )
            await self._settle(settlement)
        if self.session is not None:
            await self.session.channel.leave()

    def expire(self, limit: float) -> None:
        """Gives up what is held since before `limit`, before the server ends the channel."""
        session = self.session
        if session is not None and any(each.receipt.since < limit for each in self.held):
            session.channel.create_task(session.channel.leave())

    async def _settle(self, settlement: Settlement) -> SettleResult:
        delivery = settlement.delivery
        session = delivery.receipt.session
        if self.marks(delivery) is None:
            return SettleResult.LOST
        if settlement.action is not Action.ACK:
            try:
                told = _told(settlement.failures, settlement.first_failure)
                await self._put(delivery.message, *told)
            except TransportError as error:
                _logger.warning("a message could not be given back: %s", error)
                return SettleResult.UNKNOWN
            if self.marks(delivery) is None:
                return SettleResult.LOST
        session.ack(delivery.receipt.tag)
        future: asyncio.Future[Sequence[SettleResult]] = asyncio.get_running_loop().create_future()
        session.resolve(future, [SettleResult.DONE])
        return (await future)[0]

    async def _put(
        self, message: Message, attempt: str, first_failure: str, address: str = ""
    ) -> None:
        # What comes from here is believed, so it says nothing but what this process knows.
        metadata = {
            name: text
            for name, text in message.metadata.items()
            if not name.startswith(wire.PF_PREFIX)
        }
        metadata |= {
            _TOKEN: uuid.uuid4().hex,
            wire.PF_GROUP: self._group,
            wire.PF_ATTEMPT: attempt,
            wire.PF_FIRST_FAILURE: first_failure,
            wire.PF_ORIGINAL_TOPIC: message.topic,
        }
        error = await self._publish(
            dataclasses.replace(
                message, topic=address or self._queue, metadata=metadata, delay=0.0, mandatory=True
            )
        )
        if error is not None:
            raise TransportError(f"queue {self._queue}: {error}") from error

    async def _take(self) -> tuple[Delivery, int] | None:
        session = self.session
        if session is None or session.channel.is_closed:
            session = await self._open()
        while (got := await session.channel.get(self._queue)) is not None:
            (_, tag, again, _), properties, body = got
            message, size = codec.decode(self._topic, properties, body, self._owner)
            metadata = dict(message.metadata)
            token = metadata.pop(_TOKEN, "")
            message = dataclasses.replace(message, metadata=metadata)
            deliveries = codec.deliveries(properties, again)
            delivery = Delivery(
                message=message,
                deliveries=deliveries,
                position=tag,
                time=codec.sent_at(properties),
                size=size,
                own_place=True,
                suspect=True,
                unreadable=properties.problem,
            )
            session.arrived(delivery, tag)
            delivery.receipt.handed = True
            delivery.receipt.token = token
            if deliveries == 1 or token not in self._flapped:
                return delivery, deliveries - 1
            del self._flapped[token]
            attempt = message.metadata.get(wire.PF_ATTEMPT, "0")
            await self._put(message, attempt, message.metadata.get(wire.PF_FIRST_FAILURE, "0"))
            session.ack(tag)
            await session.settled()
        return None

    async def _open(self) -> Session:
        channel = await self._link.channel(confirms=False)
        await channel.request(Basic.Qos(prefetch_count=1))
        channel.tap()
        session = self.session = Session(channel, 1)
        channel.closing.add_done_callback(lambda _: self._ended(session))
        return session

    def _ended(self, session: Session) -> None:
        """The channel ended and this process did not: the count will rise, and mean nothing."""
        unsettled, session.unsettled = session.unsettled, {}
        for delivery in unsettled.values():
            if len(self._flapped) >= _REMEMBERED:
                del self._flapped[next(iter(self._flapped))]
            self._flapped[delivery.receipt.token] = None
            self._lost(delivery)


def _told(failures: int, first_failure: float) -> tuple[str, str]:
    return str(failures), f"{first_failure:.3f}"
