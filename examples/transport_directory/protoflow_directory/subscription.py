"""What the files of a group do for one subscription; the kit does the rest."""

import uuid
from asyncio import Future
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport import SubscriptionListener, SubscriptionSettings, TransportSettings
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.queue_subscription import QueueSubscription

from protoflow_directory.files import Entry, Group, decode, move


class DirectorySubscription(QueueSubscription):
    """The deliveries of one group. `run` runs a call in the transport's one thread."""

    def __init__(
        self,
        group: Group,
        run: Callable[..., Future[Any]],
        poll: float,
        transport: TransportSettings,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
    ) -> None:
        self._group = group
        self._run = run
        self._clock_now = transport.clock.now
        self._held: dict[str, Entry] = {}  # what is claimed here, by receipt
        source = QueueSource(
            fetch=lambda count, size: run(self._fetch, count, size),
            settle=lambda settlements: run(lambda: [*map(self._settle, settlements)]),
            renew=lambda deliveries: run(self._renew, deliveries),
            available=lambda: run(lambda: len([*group.due(self._now())])),
            poll=poll,
        )
        super().__init__(source, settings, listener, transport.clock)

    def _now(self) -> int:
        return round(self._clock_now() * 1000)

    def _fetch(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        taken: list[Delivery] = []
        for entry in self._group.due(self._now()):
            if len(taken) == max_messages or max_bytes <= 0:
                break
            counted = entry._replace(deliveries=entry.deliveries + 1, claim=uuid.uuid4().hex)
            held = counted._replace(time=self._now() + round(self.settings.lease * 1000))
            if not move(self._group.ready / str(entry), self._group.held / str(held)):
                continue  # another process was first
            delivery = self._delivery(held)
            if delivery.size > max_bytes and taken:
                self._group.free(held, entry)
                break
            max_bytes -= delivery.size
            self._held[held.claim] = held
            taken.append(delivery)
        return taken

    def _delivery(self, held: Entry) -> Delivery:
        unreadable, topic = None, self.settings.topic
        content = (self._group.held / str(held)).read_bytes()
        try:
            message = decode(content, topic)
        except ValueError as error:
            unreadable = f"the file is damaged: {error}"
            message = Message(id=held.sequence, topic=topic, payload=content)
        return Delivery(
            message=message,
            failures=held.failures,
            first_failure=held.first_failure / 1000,
            deliveries=held.deliveries,
            position=int(held.sequence[:20]),
            time=int(held.sequence[:20]) / 1e9,
            size=len(content),
            receipt=held.claim,
            suspect=held.marks > 0,
            unreadable=unreadable,
        )

    def _settle(self, settlement: Settlement) -> SettleResult:
        held = self._held.pop(settlement.delivery.receipt, None)
        if held is None:
            return SettleResult.LOST
        if settlement.action is Action.ACK:
            done = move(self._group.held / str(held), None)
        else:
            entry = held._replace(
                time=self._now() + round(settlement.delay * 1000) if settlement.delay else 0,
                failures=settlement.failures,
                first_failure=round(settlement.first_failure * 1000),
            )
            done = self._group.free(held, entry)
        return SettleResult.DONE if done else SettleResult.LOST

    def _renew(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        time = self._now() + round(self.settings.lease * 1000)
        return [each for each in deliveries if not self._change(each, time=time)]

    def _change(
        self, delivery: Delivery, time: int | None = None, marks: int | None = None
    ) -> bool:
        """Changes the name of a claimed file. False: it is not held any more."""
        held = self._held.get(delivery.receipt)
        if held is None:
            return False
        new = held._replace(
            time=held.time if time is None else time, marks=held.marks if marks is None else marks
        )
        if not move(self._group.held / str(held), self._group.held / str(new)):
            del self._held[delivery.receipt]
            return False
        self._held[delivery.receipt] = new
        return True

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `Isolation`: the delivery itself, for its name keeps the start marks."""
        held = None if delivery is None else self._held.get(delivery.receipt)
        return None if delivery is None or held is None else (delivery, held.marks)

    async def mark(self, delivery: Delivery) -> None:
        """See `Isolation`."""
        held = self._held.get(delivery.receipt)
        marks = held.marks + 1 if held else 0
        if not await self._run(lambda: self._change(delivery, marks=marks)):
            raise TransportError(f"{self.settings.name}: the delivery is not held any more")

    async def clear(self, delivery: Delivery) -> None:
        """See `Isolation`."""
        await self._run(lambda: self._change(delivery, marks=0))
