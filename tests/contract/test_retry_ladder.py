"""The ladder: a wait climbs rungs until it is due, never early, late by the smallest at most."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from protoflow.contract.retry_ladder import rung

ladders = st.lists(st.floats(0.5, 3600.0), min_size=1, max_size=6, unique=True).map(sorted)


@given(ladders, st.floats(0.0, 100_000.0))
def test_a_rung_is_the_largest_that_fits_else_the_smallest(
    ladder: list[float], wait: float
) -> None:
    chosen = rung(ladder, wait)
    assert chosen in ladder
    if wait >= ladder[0]:
        assert chosen <= wait
        assert not [step for step in ladder if chosen < step <= wait]
    else:
        assert chosen == ladder[0]


@given(ladders, st.floats(0.0, 50_000.0))
def test_a_wait_ends_when_due_and_late_by_the_smallest_rung_at_most(
    ladder: list[float], wait: float
) -> None:
    left = wait
    while left > 0:
        before = left
        left -= rung(ladder, left)
        assert left < before
    assert -left <= ladder[0]
