"""What a group's files do for one subscription; the kit does the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport import SubscriptionListener, SubscriptionSettings, TransportSettings
from protoflow.transport.kit.queue_source import QueueSource
from protoflow.transport.kit.queue_subscription import QueueSubscription

from protoflow_directory.files import Group, Held, decode, milliseconds

T = TypeVar("T")


class DirectorySubscription(QueueSubscription):
    """The deliveries of one group. All file operations run in the transport's one thread."""

    def __init__(
        self,
        group: Group,
        executor: Executor,
        poll: float,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        transport: TransportSettings,
    ) -> None:
        self._group = group
        self._executor = executor
        self._now = transport.clock.now
        self._held: dict[object, Held] = {}  # by receipt: the name of the claimed file
        source = QueueSource(
            fetch=lambda count, size: self._run(lambda: self._fetch(count, size)),
            settle=lambda settlements: self._run(lambda: [*map(self._settle, settlements)]),
            renew=lambda deliveries: self._run(lambda: self._renew(deliveries)),
            available=lambda: self._run(lambda: sum(1 for _ in group.due(self._time()))),
            poll=poll,
        )
        super().__init__(source, settings, listener, transport.clock)

    def _run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._executor, call)

    def _time(self) -> int:
        return milliseconds(self._now())

    def _fetch(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        self._group.free_expired(self._time())
        taken: list[Delivery] = []
        for entry in self._group.due(self._time()):
            if len(taken) == max_messages or max_bytes <= 0:
                break
            held = self._group.claim(entry, self._time() + milliseconds(self.settings.lease))
            if held is None:
                continue  # another process was first
            delivery = self._delivery(held)
            max_bytes -= delivery.size
            if max_bytes < 0 and taken:
                self._group.give_back(held, entry)
                break
            self._held[delivery.receipt] = held
            taken.append(delivery)
        return taken

    def _delivery(self, held: Held) -> Delivery:
        entry, topic, unreadable = held.entry, self.settings.topic, None
        content = (self._group.held / str(held)).read_bytes()
        try:
            message = decode(content, topic)
        except (ValueError, LookupError) as error:
            unreadable = f"the file is damaged: {error}"
            message = Message(id=entry.sequence, topic=topic, payload=content)
        return Delivery(
            message=message,
            failures=entry.failures,
            first_failure=entry.first_failure / 1000,
            deliveries=entry.deliveries,
            position=int(entry.sequence[:20]),
            time=int(entry.sequence[:20]) / 1e9,
            size=len(content),
            receipt=held.claim,
            suspect=entry.marks > 0,
            unreadable=unreadable,
        )

    def _settle(self, settlement: Settlement) -> SettleResult:
        held = self._held.pop(settlement.delivery.receipt, None)
        if held is None:
            return SettleResult.LOST
        if settlement.action is Action.ACK:
            done = self._group.finish(held)
        else:
            due = self._time() + milliseconds(settlement.delay) if settlement.delay else 0
            entry = held.entry._replace(
                due=due,
                failures=settlement.failures,
                first_failure=milliseconds(settlement.first_failure),
            )
            done = self._group.give_back(held, entry)
        return SettleResult.DONE if done else SettleResult.LOST

    def _renew(self, deliveries: Sequence[Delivery]) -> Collection[Delivery]:
        expiry = self._time() + milliseconds(self.settings.lease)
        return [each for each in deliveries if not self._change(each, expiry=expiry)]

    def _change(self, delivery: Delivery, **fields: int) -> bool:
        """Changes the name of a claimed file; False if it is not held any more."""
        held = self._held.get(delivery.receipt)
        if held is None:
            return False
        expiry, marks = fields.get("expiry", held.expiry), fields.get("marks", held.entry.marks)
        new = Held(expiry, held.entry._replace(marks=marks), held.claim)
        if not self._group.rename(held, new):
            del self._held[delivery.receipt]
            return False
        self._held[delivery.receipt] = new
        return True

    # Start marks, for `proves_killers`.

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """The delivery itself, and its start marks: a file keeps its name's numbers."""
        held = None if delivery is None else self._held.get(delivery.receipt)
        return None if delivery is None or held is None else (delivery, held.entry.marks)

    async def mark(self, delivery: Delivery) -> None:
        """Writes one start mark more."""
        held = self._held.get(delivery.receipt)
        marks = 0 if held is None else held.entry.marks + 1
        if not await self._run(lambda: self._change(delivery, marks=marks)):
            raise TransportError(f"{self.settings.name}: a delivery is not held any more")

    async def clear(self, delivery: Delivery) -> None:
        """Removes the start marks."""
        await self._run(lambda: self._change(delivery, marks=0))
