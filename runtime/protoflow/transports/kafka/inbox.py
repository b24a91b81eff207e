"""Deliveries that were read and not yet handed to the scheduler."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from protoflow.message import Delivery


class Inbox:
    """A queue with one reader that can be emptied by shard and closed."""

    def __init__(self) -> None:
        self._ready: deque[Delivery] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._emptied = asyncio.Event()
        self._emptied.set()
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
            self._emptied.set()
        return found

    def clear(self) -> None:
        """Takes out everything."""
        self._ready.clear()
        self._emptied.set()

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
            self._emptied.set()
        return taken

    async def wait_empty(self) -> None:
        """Waits until everything is handed out: then it is time to read more."""
        await self._emptied.wait()

    def close(self, error: Exception | None = None) -> None:
        """No more deliveries: `get` returns empty, or raises the error."""
        self._closed = True
        self._error = self._error or error
        self._emptied.set()
        self._wake()

    def _wake(self) -> None:
        if self._ready:
            self._emptied.clear()
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def _position(delivery: Delivery) -> int:
    return int(delivery.position)
