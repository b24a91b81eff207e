"""Deliveries that wait to be handed out: first in, first out, or in the order of lanes.

JetStream hands out a message that was given back after newer ones. So an ordered
subscription gives nothing back while it lives: it keeps the message, and its lane waits.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Hashable

from protoflow.contract.spec import Ordering
from protoflow.transports.nats.jetstream.leases import Lease


class FifoBuffer:
    """A buffer without lanes."""

    def __init__(self) -> None:
        self._waiting: deque[Lease] = deque()

    def add(self, lease: Lease) -> None:
        """As `Buffer.add`."""
        self._waiting.append(lease)

    def take(self, now: float, accept: Callable[[Lease], bool]) -> bool:
        """As `Buffer.take`."""
        waiting = self._waiting
        while waiting:
            if not accept(waiting[0]):
                return False
            waiting.popleft()
        return True

    def ready(self, now: float) -> int:
        """As `Buffer.ready`."""
        return sum(not lease.ended for lease in self._waiting)

    def settled(self, lease: Lease) -> None:
        """Nothing: nothing waits for it."""

    def drain(self) -> list[Lease]:
        """As `Buffer.drain`."""
        waiting = [*self._waiting]
        self._waiting.clear()
        return waiting


class OrderedBuffer:
    """A buffer in which a message waits for the earlier ones of its lane."""

    def __init__(self, ordering: Ordering) -> None:
        self._ordering = ordering
        self._waiting: list[Lease] = []
        self._handed: dict[Hashable, set[int]] = {}

    def add(self, lease: Lease) -> None:
        """As `Buffer.add`."""
        insort(self._waiting, lease, key=_sequence)

    def take(self, now: float, accept: Callable[[Lease], bool]) -> bool:
        """As `Buffer.take`. A lane is blocked by a message that is not due, and by a later
        one that is still handed out."""
        blocked: set[Hashable] = set()
        kept: list[Lease] = []
        more = True
        for index, lease in enumerate(self._waiting):
            if lease.ended:
                continue  # lost while it waited: nothing of it is left, its lane is free
            lane = self._lane(lease)
            handed = self._handed.get(lane)
            if lane in blocked or lease.due > now or (handed and max(handed) > lease.sequence):
                blocked.add(lane)
                kept.append(lease)
            elif accept(lease):
                self._handed.setdefault(lane, set()).add(lease.sequence)
            else:
                kept += self._waiting[index:]
                more = False
                break
        self._waiting = kept
        return more

    def ready(self, now: float) -> int:
        """As `Buffer.ready`."""
        blocked: set[Hashable] = set()
        count = 0
        for lease in self._waiting:
            lane = self._lane(lease)
            if lease.ended or lane in blocked:
                continue
            handed = self._handed.get(lane)
            if lease.due > now or (handed and max(handed) > lease.sequence):
                blocked.add(lane)
            else:
                count += 1
        return count

    def settled(self, lease: Lease) -> None:
        """As `Buffer.settled`."""
        lane = self._lane(lease)
        if handed := self._handed.get(lane):
            handed.discard(lease.sequence)
            if not handed:
                del self._handed[lane]

    def drain(self) -> list[Lease]:
        """As `Buffer.drain`."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def _lane(self, lease: Lease) -> Hashable:
        if self._ordering is Ordering.PER_PARTITION:
            return b""
        return lease.delivery.message.key or lease.sequence


def _sequence(lease: Lease) -> int:
    return lease.sequence
