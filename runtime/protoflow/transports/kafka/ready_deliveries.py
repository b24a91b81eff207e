"""Deliveries that were read and not yet passed to the scheduler."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from protoflow.message import Delivery
from protoflow.transports.kafka.fair_share import FairShare
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup


class ReadyDeliveries:
    """A queue for each partition; partitions are served in turn.

    A partition whose share is used up is left out until a quarter of the share is settled. It is
    not read until then, and other partitions continue. While a limit is used up, no partition is
    served.

    Args:
        share: limits the messages of one partition in flight.
        wakeup: wakes the reader when only left-out partitions have deliveries.
    """

    def __init__(self, share: FairShare, wakeup: ReaderWakeup) -> None:
        self._share = share
        self._wakeup = wakeup
        self._turns: deque[Partition] = deque()
        self._arrived: asyncio.Future[None] | None = None
        self._closed = False
        self._left: int | None = None  # the number of deliveries that a limit still allows
        self._error: Exception | None = None

    def put(self, partition: Partition, deliveries: Iterable[Delivery]) -> None:
        """Adds deliveries of a partition at its end."""
        self._add(partition, deliveries)
        self._wake()

    def put_back(self, deliveries: Iterable[Delivery]) -> None:
        """Adds handed-out deliveries again, each before later ones of its partition."""
        touched: dict[Partition, None] = {}
        for delivery in deliveries:
            partition: Partition = delivery.receipt
            touched[partition] = None
            self._add(partition, (delivery,))
        for partition in touched:
            partition.ready = deque(sorted(partition.ready, key=_position))
        self._wake()

    def _add(self, partition: Partition, deliveries: Iterable[Delivery]) -> None:
        waits = bool(partition.ready)
        partition.ready.extend(deliveries)
        if not waits and partition.ready and partition.capped_at is None:
            self._turns.append(partition)

    def withdraw(self, partition: Partition) -> list[Delivery]:
        """Removes and returns the deliveries of a partition, in order."""
        found = list(partition.ready)
        partition.ready.clear()
        partition.capped_at = None
        if partition in self._turns:
            self._turns.remove(partition)
        if not self._turns:
            self._wakeup.wake()
        return found

    def uncap(self, partition: Partition) -> None:
        """Serves a partition again whose share was used up."""
        partition.capped_at = None
        if partition.ready:
            self._turns.append(partition)
            self._wake()

    def limit(self, count: int) -> None:
        """Hands out at most `count` more deliveries until `unlimit`. A second limit is ignored."""
        if self._left is None:
            self._left = count

    def unlimit(self) -> None:
        """Ends `limit`."""
        self._left = None
        self._wake()

    def clear(self) -> None:
        """Removes all deliveries."""
        for partition in (*self._turns, *self._share.partitions):
            partition.ready.clear()
            partition.capped_at = None
        self._turns.clear()
        self._wakeup.wake()

    @property
    def is_empty(self) -> bool:
        """Whether all deliveries are handed out, except those of left-out partitions."""
        return not self._turns

    async def get(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        """Returns at least one delivery; none after `close`. Raises the error passed to `close`."""
        while not (taken := self._take(max_messages, max_bytes)):
            if self._error is not None:
                raise self._error
            if self._closed:
                return []
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return taken

    def _take(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        if self._left is None:
            return self._take_turns(max_messages, max_bytes)
        allowed = min(max_messages, self._left)
        taken = self._take_turns(allowed, max_bytes) if allowed else []
        self._left -= len(taken)
        return taken

    def _take_turns(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        taken: list[Delivery] = []
        size = 0
        turns = self._turns
        for _ in range(len(turns)):
            partition = turns.popleft()
            ready = partition.ready
            count = min(max_messages - len(taken), len(ready))
            count = self._share.of(partition, count, max_messages - len(taken), max_bytes - size)
            if count <= 0:
                partition.capped_at = partition.handed_out
                partition.resting = True
                continue
            first, before = len(taken), size
            while count and (size + ready[0].size <= max_bytes or not taken):
                delivery = ready.popleft()
                size += delivery.size
                taken.append(delivery)
                count -= 1
            if len(taken) > first:
                partition.mean_size = (size - before) / (len(taken) - first)
            if ready:
                turns.append(partition)
            if len(taken) == max_messages or size >= max_bytes:
                break
        if not turns:
            self._wakeup.wake()
        return taken

    def close(self, error: Exception | None = None) -> None:
        """Ends the queue: `get` returns no deliveries, or raises the error."""
        self._closed = True
        self._error = self._error or error
        self._wakeup.wake()
        self._wake()

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)


def _position(delivery: Delivery) -> int:
    return int(delivery.position)
