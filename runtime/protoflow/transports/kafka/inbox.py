"""Deliveries that were read and not yet handed to the scheduler."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from protoflow.message import Delivery
from protoflow.transports.kafka.bell import Bell


class Inbox:
    """A queue with one reader that can be emptied by shard and closed.

    Args:
        bell: rung when everything is handed out.
    """

    def __init__(self, bell: Bell | None = None) -> None:
        self._bell = bell or Bell()
        self._ready: deque[Delivery] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._closed = False
        self._error: Exception | None = None

    def put(self, deliveries: Iterable[Delivery]) -> None:
        """Adds deliveries at the end."""
        self._ready.extend(deliveries)
        self._wake()

    def put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Adds deliveries that were out already, each before the later ones of its shard."""
        self._ready = deque(sorted((*deliveries, *self._ready), key=_position))
        self._wake()

    def withdraw(self, shard: str | int) -> list[Delivery]:
        """Takes out what is there of a shard, in order."""
        found = [delivery for delivery in self._ready if delivery.shard == shard]
        if found:
            self._ready = deque(item for item in self._ready if item.shard != shard)
        if not self._ready:
            self._bell.ring()
        return found

    def clear(self) -> None:
        """Takes out everything."""
        self._ready.clear()
        self._bell.ring()

    @property
    def is_empty(self) -> bool:
        """Whether everything is handed out."""
        return not self._ready

    def count(self, shard: str | int) -> int:
        """How many deliveries of a shard wait here."""
        return sum(delivery.shard == shard for delivery in self._ready)

    async def get(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        """At least one delivery; none once closed. Raises the error it was closed with."""
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._closed:
                return []
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        ready = self._ready
        taken = [ready.popleft()]
        size = taken[0].size
        while ready and len(taken) < max_messages and size + ready[0].size <= max_bytes:
            delivery = ready.popleft()
            size += delivery.size
            taken.append(delivery)
        if not ready:
            self._bell.ring()
        return taken

    def close(self, error: Exception | None = None) -> None:
        """No more deliveries: `get` returns empty, or raises the error."""
        self._closed = True
        self._error = self._error or error
        self._bell.ring()
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def _position(delivery: Delivery) -> int:
    return int(delivery.position)
