"""Deliveries that came and were not handed out yet."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection

from protoflow.message import Delivery


class Ready:
    """The deliveries by shard, each shard in the order of the queue."""

    def __init__(self, shards: int) -> None:
        self._shards: dict[int, deque[Delivery]] = {shard: deque() for shard in range(shards)}
        self._paused: set[str | int] = set()

    def __len__(self) -> int:
        return sum(map(len, self._shards.values()))

    def append(self, delivery: Delivery) -> None:
        """Adds what just came."""
        self._shards[int(delivery.shard)].append(delivery)

    def insert(self, delivery: Delivery) -> None:
        """Adds what had been handed out, where it stood in the queue."""
        shard = int(delivery.shard)
        self._shards[shard] = deque(
            sorted((*self._shards[shard], delivery), key=lambda each: int(each.position))
        )

    def discard(self, delivery: Delivery) -> None:
        """Removes a delivery if it is here."""
        queue = self._shards[int(delivery.shard)]
        if delivery in queue:
            queue.remove(delivery)

    def clear(self) -> None:
        """Removes all."""
        for queue in self._shards.values():
            queue.clear()

    def pause(self, shards: Collection[str | int]) -> None:
        """Takes nothing more from these shards."""
        self._paused.update(shards)

    def resume(self, shards: Collection[str | int]) -> None:
        """Ends `pause`."""
        self._paused.difference_update(shards)

    def take(self, max_messages: int, max_bytes: int) -> list[Delivery]:
        """The next ones; bytes beyond `max_bytes` only in the first."""
        batch: list[Delivery] = []
        size = 0
        for shard, queue in self._shards.items():
            if shard in self._paused:
                continue
            while queue and len(batch) < max_messages:
                size += queue[0].size
                if batch and size > max_bytes:
                    return batch
                batch.append(queue.popleft())
        if len(self._shards) > 1 and batch:  # the next call begins with another shard
            first = next(iter(self._shards))
            self._shards[first] = self._shards.pop(first)
        return batch
