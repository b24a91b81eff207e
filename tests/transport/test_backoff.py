"""Backoff: waits double up to a limit, with jitter, and start again after a success."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from protoflow.transport.kit.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(0.1, 0.5)
    assert [backoff.next() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_a_reset_starts_with_the_first_wait() -> None:
    backoff = Backoff(1.0, 8.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 1.0


def test_the_first_wait_is_never_longer_than_the_longest() -> None:
    assert Backoff(10.0, 2.0).next() == 2.0


@given(
    first=st.floats(0.001, 10.0),
    most=st.floats(0.001, 100.0),
    jitter=st.lists(st.floats(0.0, 1.0, exclude_max=True), min_size=1, max_size=20),
)
def test_jitter_takes_at_most_half(first: float, most: float, jitter: list[float]) -> None:
    numbers = iter(jitter)
    plain, jittered = Backoff(first, most), Backoff(first, most, lambda: next(numbers))
    for _ in jitter:
        whole, part = plain.next(), jittered.next()
        assert whole / 2 <= part <= whole <= most
