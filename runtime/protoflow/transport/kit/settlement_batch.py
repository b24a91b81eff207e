"""Settlements that were sent to the broker."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from operator import attrgetter, is_

from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transport.kit.leases import LeaseTable

_delivery, _others = attrgetter("delivery"), attrgetter("others")
_receipt = attrgetter("receipt")
_DONE, _LOST, _UNKNOWN = SettleResult.DONE, SettleResult.LOST, SettleResult.UNKNOWN


class SettlementBatch:
    """The settlements of one call: answered locally if possible, otherwise sent to the broker.

    Fencing: only a delivery that is held under its receipt is accepted, and it is not held during
        its settlement. The receipt of a settled delivery becomes the action, so that a repetition
        gets the same answer. A delivery with an unknown result is held again, unless the lease
        table was cleared meanwhile.

    Args:
        leases: the table that holds the deliveries.
        settlements: the settlements.
        now: the time, by the clock of the table.

    Attributes:
        accepted: the settlements to send.
        results: one result for each settlement; UNKNOWN for those that are sent.
    """

    __slots__ = ("_epoch", "_leases", "_now", "accepted", "results")

    def __init__(self, leases: LeaseTable, settlements: Sequence[Settlement], now: float) -> None:
        self._leases = leases
        self._epoch = leases.epoch
        self._now = now
        self.accepted = [*settlements]
        self.results = [_UNKNOWN] * len(settlements)
        if not self._accept_all():
            self._accept_each(settlements)

    def _accept_all(self) -> bool:
        """Whether all settlements are of different, held deliveries, which is the usual case. It
        needs no Python loop."""
        held = self._leases.held
        deliveries = [*map(_delivery, self.accepted)]
        receipts = [*map(_receipt, deliveries)]
        if (
            any(map(_others, self.accepted))
            or len({*receipts}) < len(receipts)
            or not all(map(is_, map(held.get, receipts), deliveries))
        ):
            return False
        deque(map(held.pop, receipts), maxlen=0)
        return True

    def _accept_each(self, settlements: Sequence[Settlement]) -> None:
        leases, held = self._leases, self._leases.held
        results: list[SettleResult] = []
        accepted: list[Settlement] = []
        for settlement in settlements:
            delivery = settlement.delivery
            receipt = delivery.receipt
            if held.get(receipt) is not delivery:
                results.append(_DONE if receipt is settlement.action else _LOST)
                continue
            if settlement.others:
                if not all(map(leases.holds, settlement.others)):
                    results.append(_LOST)
                    continue
                for other in settlement.others:
                    held.pop(other.receipt, None)
            held.pop(receipt, None)
            accepted.append(settlement)
            results.append(_UNKNOWN)
        self.accepted = accepted
        self.results = results

    def confirm(self, answers: Sequence[SettleResult]) -> list[SettleResult]:
        """Returns all results, from the broker's answers to the settlements that were sent."""
        if len(answers) != len(self.accepted):
            raise ValueError(f"{len(answers)} answers to {len(self.accepted)} settlements")
        final = [*answers]
        for index, settlement in enumerate(self.accepted):
            if (answer := final[index]) is not _DONE:
                if answer is not _LOST:
                    final[index] = self._restored(settlement, answer)
                continue
            settlement.delivery.receipt = settlement.action
            if settlement.others:
                for other in settlement.others:
                    other.receipt = settlement.action
        if len(final) < len(self.results):
            sent = iter(final)
            final = [next(sent) if each is _UNKNOWN else each for each in self.results]
        self.results = final
        return final

    def unknown(self) -> list[SettleResult]:
        """Returns all results if the broker did not answer; the deliveries are held again."""
        return self.confirm([_UNKNOWN] * len(self.accepted))

    def lost(self) -> list[SettleResult]:
        """Returns all results if this process has lost all deliveries."""
        return self.confirm([_LOST] * len(self.accepted))

    def _restored(self, settlement: Settlement, answer: SettleResult) -> SettleResult:
        if self._epoch != self._leases.epoch:
            return _LOST
        for delivery in dict.fromkeys((settlement.delivery, *settlement.others)):
            self._leases.restore(delivery, self._now)
        return answer


def released(delivery: Delivery) -> Settlement:
    """Returns the settlement that gives a delivery back unchanged."""
    return Settlement(
        delivery, Action.RELEASE, failures=delivery.failures, first_failure=delivery.first_failure
    )
