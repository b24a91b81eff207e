"""Deliveries that this process holds under a lease."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from protoflow.message import Delivery

_receipt = attrgetter("receipt")

Report = Callable[[Sequence[Delivery]], object]


@dataclass(slots=True)
class _Lease:
    """The state of a delivery since the first sweep that saw it."""

    delivery: Delivery
    taken: float
    renewed: float


class LeaseTable:
    """The deliveries that this process holds, by receipt.

    Before the first sweep, a delivery costs only one entry in a dict. Call `sweep`
    every third of a lease: each delivery is then renewed before half of its lease is over.
    The table uses no clock and no broker; the caller passes the time of a monotonic clock to every
    method.

    Args:
        lease: the duration of a lease in seconds.
        max_hold: the longest time, in seconds, for which a lease is renewed.

    Attributes:
        held: the deliveries by their receipts. Callers may only read it.
        epoch: increased by `clear`, so that answers to earlier requests can be ignored.
    """

    def __init__(self, lease: float, max_hold: float = math.inf) -> None:
        self.held: dict[Hashable, Delivery] = {}
        self.epoch = 0
        self._lease = lease
        self._max_hold = max_hold
        self._seen: dict[Hashable, _Lease] = {}
        self._since: float | None = None  # the time of the first addition since the last sweep

    def __len__(self) -> int:
        return len(self.held)

    def holds(self, delivery: Delivery) -> bool:
        """Whether this delivery is held, and not a later one with the same receipt."""
        return self.held.get(delivery.receipt) is delivery

    def add(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Holds deliveries whose leases begin now."""
        if self._since is None:
            self._since = now
        elif now - self._since > self._lease / 6:
            self._see()
            self._since = now
        added = [*deliveries]
        self.held.update(zip(map(_receipt, added), added, strict=True))

    def restore(self, delivery: Delivery, renewed: float) -> None:
        """Holds a delivery again that was released; its lease was renewed at `renewed`."""
        self.held[delivery.receipt] = delivery
        lease = self._seen.get(delivery.receipt)
        if lease is None or lease.delivery is not delivery:
            self._seen[delivery.receipt] = _Lease(delivery, renewed, renewed)

    def release(self, delivery: Delivery) -> bool:
        """Stops holding a delivery; returns False if it was not held."""
        if self.held.get(delivery.receipt) is not delivery:
            return False
        del self.held[delivery.receipt]
        return True

    def clear(self) -> list[Delivery]:
        """Releases all deliveries and begins a new epoch. Returns the released deliveries."""
        lost = [*self.held.values()]
        self.held.clear()
        self._seen.clear()
        self._since = None
        self.epoch += 1
        return lost

    def renewed(self, deliveries: Iterable[Delivery], now: float) -> None:
        """Notes that leases were renewed at this time."""
        for delivery in deliveries:
            lease = self._seen.get(delivery.receipt)
            if lease is not None and lease.delivery is delivery:
                lease.renewed = max(lease.renewed, now)

    def sweep(self, now: float, renew: Report, lost: Report) -> None:
        """Releases deliveries that were not renewed in time and passes them to `lost`. Passes those
        that are due to `renew`; the caller calls `renewed` when the broker has renewed them."""
        self._see()
        self._since = None
        due: list[Delivery] = []
        gone: list[Delivery] = []
        for lease in self._seen.values():
            age = now - lease.renewed
            if age >= self._lease:
                gone.append(lease.delivery)
            elif age >= self._lease / 6 and now - lease.taken <= self._max_hold:
                due.append(lease.delivery)
        for delivery in gone:
            self.release(delivery)
            del self._seen[delivery.receipt]
        if gone:
            lost(gone)
        if due:
            renew(due)

    def overdue(self, now: float) -> list[Delivery]:
        """Returns the deliveries that are held for longer than `max_hold`."""
        self._see()
        limit = now - self._max_hold
        return [lease.delivery for lease in self._seen.values() if lease.taken < limit]

    def _see(self) -> None:
        """Notes since when each delivery is held, never too late."""
        seen, since = self._seen, self._since
        self._seen = {}
        for receipt, delivery in self.held.items():
            lease = seen.get(receipt)
            if lease is None or lease.delivery is not delivery:
                assert since is not None  # noqa: S101  it was added after the last sweep
                lease = _Lease(delivery, since, since)
            self._seen[receipt] = lease
