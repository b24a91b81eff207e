"""SettlementBatch: what is not held is never sent, what stays unknown is held again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transport.kit.leases import LeaseTable
from protoflow.transport.kit.settlement_batch import SettlementBatch

from tests.transport.kit import make_delivery

DONE, LOST, UNKNOWN = SettleResult.DONE, SettleResult.LOST, SettleResult.UNKNOWN
REFUSED = SettleResult.REFUSED


def _table(*deliveries: Delivery) -> LeaseTable:
    table = LeaseTable(30.0)
    table.add(deliveries, 0.0)
    return table


@settings(deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["held", "settled", "stranger"]), max_size=12),
    answers=st.lists(st.sampled_from(list(SettleResult)), min_size=12, max_size=12),
    cleared=st.booleans(),
)
def test_each_settlement_gets_its_own_answer(
    kinds: list[str], answers: list[SettleResult], cleared: bool
) -> None:
    deliveries = [make_delivery(number) for number in range(len(kinds))]
    table = _table(*(each for each, kind in zip(deliveries, kinds, strict=True) if kind == "held"))
    for delivery, kind in zip(deliveries, kinds, strict=True):
        if kind == "settled":
            delivery.receipt = Action.ACK
    batch = SettlementBatch(table, [Settlement(each) for each in deliveries], 1.0)
    assert not table.held
    if cleared:
        table.clear()
    given_answers = answers[: len(batch.accepted)]
    results = batch.confirm(given_answers)
    sent = iter(given_answers)
    for delivery, kind, result in zip(deliveries, kinds, results, strict=True):
        if kind != "held":
            assert result is (DONE if kind == "settled" else LOST)
            continue
        answer = next(sent)
        kept = answer in (UNKNOWN, REFUSED)
        assert result is (LOST if kept and cleared else answer)
        assert table.holds(delivery) == (kept and not cleared)
        assert (delivery.receipt is Action.ACK) == (answer is DONE)


def test_a_repetition_is_answered_as_before() -> None:
    delivery = make_delivery(1)
    table = _table(delivery)
    SettlementBatch(table, [Settlement(delivery, Action.NACK)], 0.0).confirm([DONE])
    again = SettlementBatch(table, [Settlement(delivery, Action.NACK)], 0.0)
    assert (again.accepted, again.results) == ([], [DONE])
    other = SettlementBatch(table, [Settlement(delivery, Action.ACK)], 0.0)
    assert (other.accepted, other.results) == ([], [LOST])


def test_a_delivery_under_the_receipt_of_another_is_not_settled() -> None:
    old, new = make_delivery(1), make_delivery(1)
    table = _table(new)
    assert SettlementBatch(table, [Settlement(old)], 0.0).results == [LOST]
    assert table.holds(new)


def test_a_delivery_on_its_way_cannot_be_settled_twice() -> None:
    delivery = make_delivery(1)
    batch = SettlementBatch(_table(delivery), [Settlement(delivery), Settlement(delivery)], 0.0)
    assert len(batch.accepted) == 1
    assert batch.confirm([DONE]) == [DONE, LOST]


def test_others_are_settled_with_their_delivery_or_not_at_all() -> None:
    first, second, third = (make_delivery(number) for number in range(3))
    table = _table(first, second)
    partly = SettlementBatch(table, [Settlement(first, others=[second, third])], 0.0)
    assert partly.results == [LOST]
    assert table.holds(first)
    wholly = SettlementBatch(table, [Settlement(first, others=[second, first])], 0.0)
    assert not table.held
    assert wholly.unknown() == [UNKNOWN]
    assert table.holds(first)
    assert table.holds(second)
    again = SettlementBatch(table, [Settlement(first, others=[second])], 0.0)
    assert again.confirm([DONE]) == [DONE]
    assert second.receipt is Action.ACK


def test_everything_that_was_sent_may_be_lost() -> None:
    first, second = make_delivery(1), make_delivery(2)
    table = _table(first)
    batch = SettlementBatch(table, [Settlement(second), Settlement(first)], 0.0)
    assert batch.lost() == [LOST, LOST]
    assert not table.held


def test_the_number_of_answers_is_checked() -> None:
    delivery = make_delivery(1)
    batch = SettlementBatch(_table(delivery), [Settlement(delivery)], 0.0)
    with pytest.raises(ValueError, match="0 answers to 1 settlement"):
        batch.confirm([])
