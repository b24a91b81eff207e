"""HealthReporter: the listener hears of the first problem and of the end of the last."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.transport.kit.health_reporter import HealthReporter

from tests.transport.kit import Listener

CHANGES = st.lists(
    st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.sampled_from(["slow", "gone"])))
)


@settings(deadline=None)
@given(changes=CHANGES)
def test_only_edges_are_reported(changes: list[tuple[str, str | None]]) -> None:
    listener = Listener()
    health = HealthReporter(listener, "orders/billing")
    problems: dict[str, str] = {}
    expected: list[tuple[bool, str]] = []
    for problem, detail in changes:
        before = bool(problems)
        problems.pop(problem, None) if detail is None else problems.update({problem: detail})
        if before != bool(problems):
            expected.append((True, "") if before else (False, f"orders/billing: {detail}"))
        health.set(problem, detail)
        assert health.healthy == (not problems)
    assert listener.health == expected


def test_a_failure_never_ends() -> None:
    listener = Listener()
    health = HealthReporter(listener)
    health.set("broker", "gone")
    health.fail("the position is lost")
    health.fail("again")
    health.set("broker", None)
    assert not health.healthy
    assert listener.health == [(False, "gone"), (False, "the position is lost")]
