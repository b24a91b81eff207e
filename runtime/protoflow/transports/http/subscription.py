"""A subscription: the deliveries of requests that wait for their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from protoflow import wire
from protoflow.ids import new_id
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transport.kit.ready_queue import ReadyQueue
from protoflow.transports.http.exchange import Exchange
from protoflow.transports.http.requests import Answer, later
from protoflow.transports.http.room import Room

#: The answer for messages that are given back because the process ends.
STOPPING: Final = later(503, "the service is stopping", 2)
#: The errors of a dead letter that no repetition can avoid.
_PERMANENT: Final = frozenset(("decode", "validation", "unhandled"))


class HttpSubscription:
    """A group's member in this process. A delivery is held as long as its request is open.

    Attributes:
        room: what is not settled, and the bodies that are being read, with their limits.
    """

    def __init__(self, settings: SubscriptionSettings, listener: SubscriptionListener) -> None:
        self.settings = settings
        self.stopped = False
        self.room = Room(settings.max_in_flight, settings.max_in_flight_bytes)
        self._listener = listener
        self._ready = ReadyQueue()
        #: The exchange of each delivery that is not settled, and why it was refused, if it was.
        self._held: dict[Delivery, Exchange] = {}
        self._refused: dict[Delivery, Answer] = {}
        self._received = 0
        self._waiting: dict[Delivery, asyncio.TimerHandle] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def load(self) -> int:
        """The number of deliveries that are not settled."""
        return len(self._held)

    def offer(self, message: Message, size: int, time: float, exchange: Exchange) -> None:
        """Adds a message of a request."""
        self._received += 1
        message = replace(message)  # each group has its own
        anonymous = not message.id
        if anonymous:
            message.id = new_id()
        delivery = Delivery(
            message=message, position=self._received, time=time, size=size, receipt=exchange,
            anonymous=anonymous,
        )  # fmt: skip
        self._hold(delivery, exchange)
        self._ready.append(delivery)

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `Subscription.receive`."""
        return await self._ready.receive(max_messages, max_bytes)

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Settles at once. A message that is given back is delivered again while its request is
        open."""
        future: asyncio.Future[Sequence[SettleResult]] = self._loop.create_future()
        future.set_result([self._settle(settlement) for settlement in settlements])
        return future

    def refuse(self, dead_letter: Message) -> bool:
        """Makes a dead letter the answer to the sender, who still has the message. Returns whether
        it is a dead letter of this subscription."""
        settings, metadata = self.settings, dead_letter.metadata
        origin = metadata.get(wire.PF_ORIGINAL_TOPIC), metadata.get(wire.PF_GROUP)
        if (
            origin != (settings.topic, settings.group)
            or dead_letter.topic not in settings.dead_letter_topics
        ):
            return False
        # Ids are the senders', and several messages may have the same one at the same time.
        position = metadata.get(wire.PF_ORIGINAL_POSITION)
        for delivery in self._held:
            if str(delivery.position) == position:
                self._refused[delivery] = _refusal(metadata)
                break
        return True

    def defer(self, message: Message, delay: float) -> Message | None:
        """Returns None, because nothing keeps the message but its sender."""
        return None

    def pause(self, shards: Collection[str | int]) -> None:
        """See `Subscription.pause`; the only shard is 0."""
        self._ready.pause(shards)

    def resume(self, shards: Collection[str | int]) -> None:
        """See `Subscription.resume`."""
        self._ready.resume(shards)

    async def available(self) -> int | None:
        """See `Availability`."""
        return 0 if self._ready.paused else len(self._ready)

    def end_intake(self) -> None:
        """See `EndsIntake`. Senders get back what was not handed out."""
        self.stopped = True
        self._give_back([*self._ready.close(), *self._waiting])

    async def stop(self) -> None:
        """See `Subscription.stop`."""
        self.end_intake()

    def close(self) -> None:
        """Gives back everything that is not settled."""
        self.stopped = True
        self._ready.close()
        self._give_back([*self._held])

    def lose(self, delivery: Delivery) -> None:
        """Withdraws a delivery whose request has ended."""
        waiting = delivery in self._waiting
        if self._release(delivery) is None or waiting:
            return
        if not self._ready.withdraw((delivery,)):
            self._listener.deliveries_lost((delivery,))

    def _settle(self, settlement: Settlement) -> SettleResult:
        old = settlement.delivery
        refusal = self._refused.get(old)
        exchange = self._release(old)
        if exchange is None:
            return SettleResult.LOST
        if settlement.action is Action.ACK:
            exchange.end(old, refusal)
        elif self.stopped:
            exchange.end(old, STOPPING)
        else:
            again = replace(
                old, failures=settlement.failures, first_failure=settlement.first_failure
            )
            self._hold(again, exchange)
            exchange.end(old)
            if settlement.delay > 0:
                self._waiting[again] = self._loop.call_later(
                    settlement.delay, self._hand_out_again, again
                )
            else:
                self._ready.put_back(again)
        return SettleResult.DONE

    def _hand_out_again(self, delivery: Delivery) -> None:
        del self._waiting[delivery]
        self._ready.put_back(delivery)

    def _hold(self, delivery: Delivery, exchange: Exchange) -> None:
        self._held[delivery] = exchange
        self.room.add(1, delivery.size)
        exchange.add(delivery, self)

    def _release(self, delivery: Delivery) -> Exchange | None:
        exchange = self._held.pop(delivery, None)
        if exchange is None:
            return None
        self.room.remove(1, delivery.size)
        self._refused.pop(delivery, None)
        if (timer := self._waiting.pop(delivery, None)) is not None:
            timer.cancel()
        return exchange

    def _give_back(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            if (exchange := self._release(delivery)) is not None:
                exchange.end(delivery, STOPPING)


def _refusal(metadata: Mapping[str, str]) -> Answer:
    kind = metadata.get(wire.PF_ERROR_CLASS, "")
    if kind in _PERMANENT:
        return Answer(422, "the message is unreadable, invalid, or of a type that is not handled")
    return Answer(500, "the message was not handled")
