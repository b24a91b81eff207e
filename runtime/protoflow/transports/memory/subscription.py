"""The subscription of the memory transport."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence

from protoflow.error_codes import LEASE_LOST
from protoflow.errors import TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transport.kit.wake_signal import WakeSignal
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.memory.client import BrokerClient, is_held
from protoflow.transports.memory.group import Entry, Group

_SHARD = 0


class MemorySubscription:
    """A member of a group; it claims on request, so it buffers nothing."""

    def __init__(self, client: BrokerClient, settings: SubscriptionSettings, group: Group) -> None:
        self.settings = settings
        self.group = group
        self._client = client
        self._loop = asyncio.get_running_loop()
        self._signal = WakeSignal()
        self._paused = False
        self._stopped = False
        group.members[self] = None

    @property
    def gone(self) -> bool:
        """Whether its event loop was closed."""
        return self._loop.is_closed()

    @property
    def waiting(self) -> bool:
        """Whether a receiver waits for messages."""
        return self._signal.waiting

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """Returns waiting messages, or waits for the first one."""
        lock, now, signal = self._client.broker.lock, self._client.clock.now, self._signal
        while not self._stopped:
            with lock:
                signal.clear()
                if not self._paused:
                    taken = self.group.claim(self, max_messages, max_bytes, now())
                    if taken:
                        return taken
                    if (due := self.group.next_due) is not None:
                        signal.wake_after(due - now())
            if not self._stopped:
                await signal.wait()
        return ()

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """Settles immediately."""
        future: asyncio.Future[Sequence[SettleResult]]
        future = asyncio.get_running_loop().create_future()
        future.set_result(self._client.settle(settlements))
        return future

    def defer(self, message: Message, delay: float) -> Message | None:
        """Returns None, because a NACK keeps every wait."""
        return None

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """Returns the delivery itself."""
        with self._client.broker.lock:
            if delivery is None or not is_held(delivery):
                return None
            return delivery, delivery.receipt.mark

    async def mark(self, delivery: Delivery) -> None:
        """Adds one start mark, which the broker keeps."""
        with self._client.broker.lock:
            if not is_held(delivery):
                raise TransportError(
                    f"message {delivery.message.id} is held by another member", code=LEASE_LOST
                )
            delivery.receipt.mark += 1

    async def clear(self, delivery: Delivery) -> None:
        """Removes the start marks; marks of a later holder stay."""
        with self._client.broker.lock:
            if is_held(delivery):
                delivery.receipt.mark = 0
            elif isinstance(delivery.receipt, Entry):
                delivery.receipt.mark = max(0, delivery.receipt.mark - 1)

    async def available(self) -> int | None:
        """Returns the number of messages that could be handed out now."""
        if self._paused or self._stopped:
            return 0
        with self._client.broker.lock:
            return self.group.available(self, self._client.clock.now())

    def pause(self, shards: Collection[str | int]) -> None:
        """Claims no messages until `resume`."""
        self._paused = self._paused or _SHARD in shards

    def resume(self, shards: Collection[str | int]) -> None:
        """Claims again."""
        if _SHARD in shards:
            self._paused = False
            self.wake()

    async def stop(self) -> None:
        """Claims no more messages; deliveries that were handed out can still be settled."""
        self._stopped = True
        self._signal.close()

    def leave(self, *, killed: bool) -> None:
        """Gives unsettled messages to other members, with their start marks if killed."""
        self._stopped = True
        self._signal.close()
        with self._client.broker.lock:
            self.group.remove_member(self, killed=killed)
            self.group.wake()
            if self.settings.broadcast and not killed:
                self._client.broker.remove(self.group)

    def wake(self) -> None:
        """Claims again if a receiver waits. Any thread may call it under the lock."""
        self._signal.wake()
