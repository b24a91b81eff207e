"""The subscription of the memory transport."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.memory.group import Entry, Group

if TYPE_CHECKING:
    from protoflow.transports.memory.transport import MemoryTransport

_SHARD = 0


class MemorySubscription:
    """A member of a group; claims when asked, so it holds nothing of its own."""

    def __init__(
        self, transport: MemoryTransport, settings: SubscriptionSettings, group: Group
    ) -> None:
        self.settings = settings
        self.group = group
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._waiter: asyncio.Future[None] | None = None
        self._alarm: tuple[float, asyncio.TimerHandle] | None = None
        self._paused = False
        self._stopped = False
        group.members[self] = None

    @property
    def gone(self) -> bool:
        """Whether its event loop was closed under it."""
        return self._loop.is_closed()

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """What waits, or what comes first."""
        lock, now = self._transport.broker.lock, self._transport.clock.now
        while not self._stopped:
            with lock:  # until there is a waiter, lest another thread finds nobody to wake
                if not self._paused:
                    taken = self.group.claim(self, max_messages, max_bytes, now())
                    if taken:
                        return taken
                    self._set_alarm(now())
                waiter = self._waiter = self._loop.create_future()
            try:
                await waiter
            finally:
                self._waiter = None
        return ()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Settles at once."""
        future: asyncio.Future[Sequence[SettleResult]]
        future = asyncio.get_running_loop().create_future()
        future.set_result(self._transport.settle(settlements))
        return future

    def defer(self, message: Message, delay: float) -> Message | None:
        """NACK keeps every wait."""
        return None

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """The delivery itself."""
        with self._transport.broker.lock:
            if delivery is None or not _is_held(delivery):
                return None
            return delivery, delivery.receipt.mark

    async def mark(self, delivery: Delivery) -> None:
        """One start mark more, kept by the broker."""
        with self._transport.broker.lock:
            if not _is_held(delivery):
                raise TransportError(f"message {delivery.message.id} is held by another")
            delivery.receipt.mark += 1

    async def clear(self, delivery: Delivery) -> None:
        """No start marks; those that its next holder has made stay."""
        with self._transport.broker.lock:
            if _is_held(delivery):
                delivery.receipt.mark = 0
            elif isinstance(delivery.receipt, Entry):
                delivery.receipt.mark = max(0, delivery.receipt.mark - 1)

    async def available(self) -> int | None:
        """How much could be handed out now."""
        if self._paused or self._stopped:
            return 0
        with self._transport.broker.lock:
            return self.group.available(self, self._transport.clock.now())

    def pause(self, shards: Collection[str | int]) -> None:
        """Claims nothing until `resume`."""
        self._paused = self._paused or _SHARD in shards

    def resume(self, shards: Collection[str | int]) -> None:
        """Claims again."""
        if _SHARD in shards:
            self._paused = False
            self.wake()

    async def stop(self) -> None:
        """Claims nothing more; what was handed out may still be settled."""
        self._stopped = True
        if self._alarm is not None:
            self._alarm[1].cancel()
        self.wake()

    def abandon(self) -> None:
        """The end: what was handed out and not settled is for others."""
        self._end()
        with self._transport.broker.lock:
            self._transport.broker.leave(self.group, self)
            if self.settings.broadcast:
                self._transport.broker.remove(self.group)

    def vanish(self) -> None:
        """The end, as if the process was killed: start marks stay."""
        self._end()
        with self._transport.broker.lock:
            self.group.lose(self)
            self.group.wake()

    def wake(self) -> None:
        """Looks again whether there is something to claim. From any thread, under the lock."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if threading.get_ident() == self._thread:
            waiter.set_result(None)
        else:
            with contextlib.suppress(RuntimeError):  # that loop was closed
                self._loop.call_soon_threadsafe(self.wake)

    def _end(self) -> None:
        self._stopped = True
        if self._alarm is not None:
            self._alarm[1].cancel()
        self.wake()

    def _set_alarm(self, now: float) -> None:
        """Looks again when the first of what waits is due."""
        due, alarm = self.group.next_due, self._alarm
        if due is None or (alarm is not None and alarm[0] <= due):
            return
        if alarm is not None:
            alarm[1].cancel()
        self._alarm = (due, self._loop.call_later(max(0.0, due - now), self._ring))

    def _ring(self) -> None:
        self._alarm = None
        self.wake()


def _is_held(delivery: Delivery) -> bool:
    return isinstance(delivery.receipt, Entry) and delivery.receipt.delivery is delivery


def check(settlement: Settlement) -> SettleResult | None:
    """What a settlement comes to without a look at its outputs; None: it can be carried out."""
    delivery = settlement.delivery
    entry = delivery.receipt
    if entry.__class__ is not Entry or entry.delivery is not delivery:
        return SettleResult.DONE if entry is settlement.action else SettleResult.LOST
    if settlement.others and not all(map(_is_held, settlement.others)):
        return SettleResult.LOST
    return None


def settle(settlement: Settlement, now: float) -> None:
    """Settles what is held, its outputs apart. The receipt of what is settled becomes the action,
    so that a repetition is answered as before."""
    delivery, action = settlement.delivery, settlement.action
    entry: Entry = delivery.receipt
    delivery.receipt = action
    if action is Action.ACK:
        entry.group.finish(entry)
        for other in settlement.others:
            if _is_held(other):  # or it was named twice
                other.receipt.group.finish(other.receipt)
                other.receipt = action
        return
    entry.failures = settlement.failures
    entry.first_failure = settlement.first_failure
    if action is Action.RELEASE:
        entry.deliveries -= 1
        entry.group.give_back(entry, 0.0)
    else:
        entry.group.give_back(entry, now + settlement.delay if settlement.delay > 0 else 0.0)
