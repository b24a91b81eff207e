"""LeaseTable: a model that notes every time, against the table that notes as little as it can."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from protoflow.message import Delivery
from protoflow.transport.kit.leases import LeaseTable

from tests.transport.kit import make_delivery

LEASE, MAX_HOLD = 30.0, 100.0


class LeaseTableMachine(RuleBasedStateMachine):
    """What the broker does: each delivery is lent from `taken`, and renewed at `renewed`."""

    def __init__(self) -> None:
        super().__init__()
        self.table = LeaseTable(LEASE, MAX_HOLD)
        self.now = 1000.0
        self.held: dict[int, Delivery] = {}
        self.taken: dict[Delivery, float] = {}
        self.renewed: dict[Delivery, float] = {}
        self.released: list[tuple[Delivery, float]] = []

    @rule(receipts=st.sets(st.integers(0, 9), min_size=1))
    def add(self, receipts: set[int]) -> None:
        deliveries = [make_delivery(receipt) for receipt in receipts]
        self.table.add(deliveries, self.now)
        for delivery in deliveries:
            self.held[delivery.receipt] = delivery
            self.taken[delivery] = self.renewed[delivery] = self.now

    @rule(seconds=st.floats(0.1, 40.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(receipt=st.integers(0, 9))
    def release(self, receipt: int) -> None:
        delivery = self.held.pop(receipt, None)
        stranger = make_delivery(receipt)
        assert not self.table.release(stranger)
        if delivery is not None:
            assert self.table.holds(delivery)
            assert self.table.release(delivery)
            assert not self.table.release(delivery)
            self.released.append((delivery, self.now))

    @rule()
    def restore(self) -> None:
        if self.released:
            delivery, time = self.released.pop()
            if delivery.receipt not in self.held:
                self.table.restore(delivery, time)
                self.held[delivery.receipt] = delivery
                self.renewed[delivery] = max(self.renewed[delivery], time)

    @rule(answers=st.booleans())
    def sweep(self, answers: bool) -> None:
        due: list[Delivery] = []
        lost: list[Delivery] = []
        self.table.sweep(self.now, due.extend, lost.extend)
        ages = {each: self.now - self.renewed[each] for each in self.held.values()}
        assert {*lost} >= {each for each, age in ages.items() if age >= LEASE + 1e-6}
        # What was added within a sixth of a lease counts from the first of it.
        assert all(ages[each] >= LEASE * 5 / 6 - 1e-6 for each in lost)
        long = {each for each in ages if self.now - self.taken[each] > MAX_HOLD}
        assert {*due} >= {each for each, age in ages.items() if age > LEASE / 6 + 1e-6} - long - {
            *lost
        }
        for delivery in lost:
            del self.held[delivery.receipt]
        if answers:
            self.table.renewed(due, self.now)
            self.renewed |= dict.fromkeys(due, self.now)

    @rule()
    def overdue(self) -> None:
        overdue = {*self.table.overdue(self.now)}
        surely = {each for each in self.held.values() if self.now - self.taken[each] > MAX_HOLD}
        assert overdue <= {*self.held.values()}
        assert all(self.now - self.taken[each] > MAX_HOLD - LEASE / 6 - 1e-6 for each in overdue)
        fresh = {each for each, _ in self.released}
        assert overdue >= {each for each in surely if each not in fresh} - self.restored()

    def restored(self) -> set[Delivery]:
        """What was restored may count from then."""
        return {each for each in self.held.values() if self.renewed[each] > self.taken[each]}

    @rule()
    def clear(self) -> None:
        epoch = self.table.epoch
        assert {*self.table.clear()} == {*self.held.values()}
        assert self.table.epoch > epoch
        self.held.clear()
        self.released.clear()

    @invariant()
    def holds_the_same(self) -> None:
        assert self.table.held == self.held
        assert len(self.table) == len(self.held)


TestLeaseTableMachine = LeaseTableMachine.TestCase
TestLeaseTableMachine.settings = settings(deadline=None)


def test_a_lease_that_is_renewed_in_time_never_ends() -> None:
    table = LeaseTable(LEASE)
    delivery = make_delivery(1)
    table.add([delivery], 0.0)
    for step in range(1, 100):
        now = step * LEASE / 3
        due: list[Delivery] = []
        lost: list[Delivery] = []
        table.sweep(now, due.extend, lost.extend)
        assert (due, lost) == ([delivery], [])
        table.renewed(due, now)


def test_what_is_added_after_a_long_pause_is_fresh() -> None:
    table = LeaseTable(LEASE)
    old, new = make_delivery(1), make_delivery(2)
    table.add([old], 0.0)
    table.add([new], 100.0)
    due: list[Delivery] = []
    lost: list[Delivery] = []
    table.sweep(101.0, due.extend, lost.extend)
    assert (due, lost) == ([], [old])


def test_what_is_held_for_too_long_is_not_renewed() -> None:
    table = LeaseTable(LEASE, max_hold=50.0)
    delivery = make_delivery(1)
    table.add([delivery], 0.0)
    renewals: list[float] = []
    lost: list[Delivery] = []
    for now in (10.0, 20.0, 30.0, 40.0, 50.0, 60.0):

        def renew(_: object, now: float = now) -> None:
            renewals.append(now)
            table.renewed([delivery], now)

        table.sweep(now, renew, lost.extend)
    assert not lost
    assert renewals == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert table.overdue(60.0) == [delivery]
