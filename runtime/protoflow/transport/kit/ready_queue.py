"""Deliveries that were received and not handed out yet."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import Any

from protoflow.message import Delivery
from protoflow.transport.kit.wake_signal import WakeSignal

_UNLIMITED = 1 << 62
_shard, _size = attrgetter("shard"), attrgetter("size")


class ReadyQueue:
    """Deliveries by shard, each shard in the order of its positions.

    Args:
        max_messages: the limit for `has_room`; deliveries beyond it are not dropped.
        max_bytes: the same limit in bytes.
        position: returns the sort key for deliveries of one shard; the default is the delivery's
            `position` as a number.
    """

    def __init__(
        self,
        *,
        max_messages: int = _UNLIMITED,
        max_bytes: int = _UNLIMITED,
        position: Callable[[Delivery], Any] | None = None,  # Any: any comparable value
    ) -> None:
        self.signal = WakeSignal()
        self.bytes = 0
        self.closed = False
        self.paused: set[str | int] = set()
        self._shards: dict[str | int, deque[Delivery]] = {}
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._position = position or _position

    def __len__(self) -> int:
        return sum(map(len, self._shards.values()))

    @property
    def has_room(self) -> bool:
        """Whether more deliveries may be fetched within the limits."""
        return self.bytes < self._max_bytes and len(self) < self._max_messages

    def append(self, delivery: Delivery) -> None:
        """Adds one delivery at the end of its shard, and wakes receivers."""
        try:
            self._shards[delivery.shard].append(delivery)
        except KeyError:
            self._shards[delivery.shard] = deque((delivery,))
        self.bytes += delivery.size
        self.signal.wake()

    def extend(self, deliveries: Iterable[Delivery]) -> None:
        """Adds deliveries, each at the end of its shard, and wakes receivers."""
        added = [*deliveries]
        shards = {*map(_shard, added)}
        if len(shards) == 1:
            self._shards.setdefault(shards.pop(), deque()).extend(added)
            self.bytes += sum(map(_size, added))
            self.signal.wake()
            return
        for delivery in added:
            self.append(delivery)

    def put_back(self, delivery: Delivery) -> None:
        """Adds a delivery again at its position, after it was handed out."""
        queue = self._shards.setdefault(delivery.shard, deque())
        key = self._position
        queue.insert(bisect_left(queue, key(delivery), key=key), delivery)
        self.bytes += delivery.size
        self.signal.wake()

    def withdraw(self, deliveries: Collection[Delivery]) -> list[Delivery]:
        """Removes and returns those deliveries that are in the queue."""
        unwanted = {*deliveries}
        return self._remove(lambda delivery: delivery in unwanted)

    def withdraw_shards(self, shards: Collection[str | int]) -> list[Delivery]:
        """Removes and returns the deliveries of shards."""
        return self._remove(lambda delivery: delivery.shard in shards)

    def clear(self) -> list[Delivery]:
        """Removes and returns all deliveries."""
        return self._remove(lambda _: True)

    def pause(self, shards: Collection[str | int]) -> None:
        """Hands out no deliveries of these shards until `resume`."""
        self.paused.update(shards)

    def resume(self, shards: Collection[str | int]) -> None:
        """Ends `pause` and wakes receivers."""
        self.paused.difference_update(shards)
        self.signal.wake()

    def take(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        """Removes and returns the next deliveries; only the first may exceed `max_bytes`."""
        batch: list[Delivery] = []
        size = 0
        paused = self.paused
        for shard, queue in self._shards.items():
            if shard in paused:
                continue
            if self.bytes <= max_bytes and len(queue) <= max_messages - len(batch):
                batch += queue  # all deliveries fit
                size += sum(map(_size, queue))
                queue.clear()
            while queue and len(batch) < max_messages:
                size += queue[0].size
                if size > max_bytes and batch:
                    size -= queue[0].size
                    break
                batch.append(queue.popleft())
        self.bytes -= size
        if len(self._shards) > 1 and batch:  # the next call begins with another shard
            first = next(iter(self._shards))
            self._shards[first] = self._shards.pop(first)
        return batch

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """Like `take`, but waits for the first delivery. Returns none once the queue is closed."""
        signal = self.signal
        while not self.closed:
            signal.clear()
            if batch := self.take(max_messages, max_bytes):
                return batch
            await signal.wait()
        return ()

    def close(self) -> list[Delivery]:
        """Ends every `receive`; removes and returns deliveries that were not handed out."""
        self.closed = True
        self.signal.close()
        return self.clear()

    def _remove(self, unwanted: Callable[[Delivery], bool]) -> list[Delivery]:
        removed: list[Delivery] = []
        for shard, queue in self._shards.items():
            found = [delivery for delivery in queue if unwanted(delivery)]
            if found:
                removed += found
                self._shards[shard] = deque(each for each in queue if not unwanted(each))
        self.bytes -= sum(delivery.size for delivery in removed)
        return removed


def _position(delivery: Delivery) -> int:
    return int(delivery.position)
