"""A subscription to a stream of other programs, with retries in a stream of the group's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from itertools import compress
from operator import not_
from typing import Any

from protoflow import wire
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transports.redis.foreign_stream import ForeignClaim, ForeignStream
from protoflow.transports.redis.publisher import RedisPublisher
from protoflow.transports.redis.subscription import RedisSubscription

#: Seconds between two requests for new entries while there are none.
_POLL = 0.1


class SourceSubscription(RedisSubscription):
    """Claims from the stream of other programs, and from that of the group's retries.

    Args:
        foreign: the stream of other programs.
        publisher: publishes retries.
        topic: the topic that the stream stands for.
        arguments: those of `RedisSubscription`; its settings name the topic of the retries.
    """

    def __init__(
        self, foreign: ForeignStream, publisher: RedisPublisher, topic: str, *arguments: Any
    ) -> None:
        super().__init__(*arguments)
        self._foreign = foreign
        self._publisher = publisher
        self._topic = topic

    def defer(self, message: Message, delay: float) -> Message | None:
        """Returns the message for the stream of the group's retries."""
        return dataclasses.replace(message, topic=self.settings.topic, delay=delay, mandatory=True)

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """Moves a suspect to the group's own stream, where start marks are kept."""
        if delivery is not None and isinstance(delivery.receipt, ForeignClaim):
            await self.settle((Settlement(delivery, Action.NACK),))
            return None
        return await super().isolate(delivery)

    async def available(self) -> int | None:
        """See `Availability`."""
        own = await super().available()
        return None if own is None else own + await self._foreign.waiting()

    async def _fetch(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        taken = [*await super()._fetch(max_messages, max_bytes)]
        for each in taken:
            each.message.topic = self._topic
            each.own_place = True
        room = max_messages - len(taken)
        if room > 0 and sum(each.size for each in taken) < max_bytes:
            try:
                found = await self._foreign.fetch(room, self._clock.monotonic())
            except TransportError as error:
                self.health.set(self._foreign, str(error))
                if not taken:
                    raise
                return taken
            self.health.set(self._foreign, None)
            taken += found
        if not taken:
            self.wake_after(_POLL)
        return taken

    async def _settle(self, settlements: Sequence[Settlement]) -> Sequence[SettleResult]:
        theirs = [
            index
            for index, each in enumerate(settlements)
            if isinstance(each.delivery.receipt, ForeignClaim)
        ]
        own = [each for index, each in enumerate(settlements) if index not in {*theirs}]
        results = iter(await super()._settle(own) if own else ())
        answers = await self._settle_foreign([settlements[index] for index in theirs])
        found = dict(zip(theirs, answers, strict=True))
        return [
            found[index] if index in found else next(results) for index in range(len(settlements))
        ]

    async def _settle_foreign(self, settlements: Sequence[Settlement]) -> list[SettleResult]:
        """Acknowledges; what failed is first published to the group's own stream."""
        unstarted = [_is_unstarted(each) for each in settlements]
        given_back = [each.delivery for each in compress(settlements, unstarted)]
        lost = {*map(id, await self._foreign.renew(given_back, give_back=True))}
        done = [*compress(settlements, map(not_, unstarted))]
        again = [self._retry(each) for each in done if each.action is not Action.ACK]
        for error in await self._publisher.submit(again) if again else ():
            if error is not None:
                raise error
        held = iter(await self._foreign.settle([each.delivery.receipt for each in done]))
        kept = [
            id(each.delivery) not in lost if free else next(held)
            for each, free in zip(settlements, unstarted, strict=True)
        ]
        return [SettleResult.DONE if each else SettleResult.LOST for each in kept]

    def _retry(self, settlement: Settlement) -> Message:
        message = settlement.delivery.message
        metadata = {
            **{
                name: value
                for name, value in message.metadata.items()
                if not name.startswith(wire.PF_PREFIX)  # others wrote it, and ours is believed
            },
            wire.PF_GROUP: self.settings.group,
            wire.PF_ATTEMPT: str(settlement.failures),
            wire.PF_FIRST_FAILURE: f"{settlement.first_failure:.3f}",
        }
        delay = settlement.delay if settlement.action is Action.NACK else 0.0
        return dataclasses.replace(
            message, topic=self.settings.topic, metadata=metadata, delay=delay, mandatory=True
        )

    async def _renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        now = self._clock.monotonic()
        theirs = [each for each in deliveries if isinstance(each.receipt, ForeignClaim)]
        lost = await self._foreign.renew(theirs)
        self.leases.renewed([each for each in theirs if each not in lost], now)
        return [*lost, *await super()._renew(deliveries)]

    async def _leave(self) -> None:
        await super()._leave()
        await self._foreign.leave()


def _is_unstarted(settlement: Settlement) -> bool:
    """Whether a delivery is given back without a failed run, which need not be stored."""
    return settlement.action is Action.RELEASE and not settlement.failures
