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
    """What is known of one delivery since the first sweep that saw it."""

    delivery: Delivery
    taken: float
    renewed: float


class LeaseTable:
    """The deliveries that are held here, by receipt.

    A delivery costs one entry in a dict, and nothing more before the first sweep. Call `sweep`
    every third of a lease: each delivery is then renewed before half of its lease is over.
    It knows no clock and no broker; every method gets the time of one monotonic clock.

    Args:
        lease: the seconds that a lease lasts unless it is renewed.
        max_hold: the seconds for which a lease is renewed at most.

    Attributes:
        held: the deliveries by their receipts. To be read only.
        epoch: raised by `clear`, so that what was sent before is known to be of no use.
    """

    def __init__(self, lease: float, max_hold: float = math.inf) -> None:
        self.held: dict[Hashable, Delivery] = {}
        self.epoch = 0
        self._lease = lease
        self._max_hold = max_hold
        self._seen: dict[Hashable, _Lease] = {}
        self._since: float | None = None  # when the first was added that no sweep has seen

    def __len__(self) -> int:
        return len(self.held)

    def holds(self, delivery: Delivery) -> bool:
        """Whether this very delivery is held, not a later one with the same receipt."""
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
        """Holds a delivery no longer; False if it was not held."""
        if self.held.get(delivery.receipt) is not delivery:
            return False
        del self.held[delivery.receipt]
        return True

    def clear(self) -> list[Delivery]:
        """Releases everything and begins a new epoch. Returns the released deliveries."""
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
        """Notes since when each delivery is held, not later than it really is."""
        seen, since = self._seen, self._since
        self._seen = {}
        for receipt, delivery in self.held.items():
            lease = seen.get(receipt)
            if lease is None or lease.delivery is not delivery:
                assert since is not None  # noqa: S101  it was added, and nothing saw it since
                lease = _Lease(delivery, since, since)
            self._seen[receipt] = lease
