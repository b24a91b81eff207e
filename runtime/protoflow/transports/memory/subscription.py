"""The subscription of the memory transport."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport import SubscriptionSettings
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
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._stopped = False
        group.members[self] = None

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """What waits, or what comes first."""
        broker, clock = self._transport.broker, self._transport.clock
        while not self._stopped:
            if not self._paused:
                taken = self.group.claim(self, max_messages, max_bytes, clock.now())
                if taken:
                    return taken
                broker.arm(self.group, clock)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
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
        self.wake()

    def abandon(self) -> None:
        """The end: what was handed out and not settled is for others."""
        self._stopped = True
        self.wake()
        self._transport.broker.leave(self.group, self)
        if self.settings.broadcast:
            self._transport.broker.remove(self.group)

    def wake(self) -> None:
        """Looks again whether there is something to claim."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def settle(settlement: Settlement, now: float) -> SettleResult:
    """Settles one delivery, its outputs apart."""
    delivery = settlement.delivery
    entry: Entry = delivery.receipt
    if entry.delivery is not delivery:
        return SettleResult.LOST
    if settlement.action is Action.ACK:
        entry.group.finish(entry)
        return SettleResult.DONE
    entry.failures = settlement.failures
    entry.first_failure = settlement.first_failure
    if settlement.action is Action.RELEASE:
        entry.deliveries -= 1
        entry.group.give_back(entry, 0.0)
    else:
        entry.group.give_back(entry, now + settlement.delay if settlement.delay > 0 else 0.0)
    return SettleResult.DONE
