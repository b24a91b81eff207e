"""In-flight messages: received and not settled yet, bounded in number and in bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from protoflow.message import Delivery
from protoflow.transport.interface import SubscriptionSettings

#: More messages are requested when this share of the bound is free.
_SHARE = 4


class InFlight:
    """Counts messages in flight and waits for room.

    Attributes:
        count: how many deliveries are not settled.
        bytes: their size.
        most: the highest count so far.
        received: received messages since the start.
        ended: settled or lost messages since the start.
    """

    __slots__ = ("_enough", "_most_bytes", "_most_count", "_room", "bytes", "count", "ended",
                 "most", "received")  # fmt: skip

    def __init__(self, settings: SubscriptionSettings) -> None:
        self.count = self.bytes = self.most = self.received = self.ended = 0
        self._most_count = settings.max_in_flight
        self._most_bytes = settings.max_in_flight_bytes
        # The limit is low enough that workers do not idle while there is room.
        spare = settings.max_in_flight - settings.concurrency
        self._enough = max(1, min(settings.max_in_flight // _SHARE, spare))
        self._room: asyncio.Future[None] | None = None

    async def room(self) -> tuple[int, int]:
        """Waits until a request is worthwhile; returns the number of messages and of bytes."""
        while not self._has_room():
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        return self._most_count - self.count, self._most_bytes - self.bytes

    def came(self, deliveries: Sequence[Delivery]) -> None:
        """Counts deliveries that were received."""
        self.received += len(deliveries)
        self.count += len(deliveries)
        self.most = max(self.most, self.count)
        for delivery in deliveries:
            self.bytes += delivery.size

    def left(self, count: int, size: int) -> None:
        """Counts deliveries that are settled or no longer held."""
        self.count -= count
        self.ended += count
        self.bytes -= size
        if self._room is not None and not self._room.done() and self._has_room():
            self._room.set_result(None)

    def _has_room(self) -> bool:
        return self._most_count - self.count >= self._enough and self.bytes < self._most_bytes
