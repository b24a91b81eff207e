"""Traces of the simulated brokers keep the rules, at a cost that grows with their length alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from protoflow.testing.broker_traces import check
from protoflow.testing.simulation.profiles import PROFILES

from tests.simulation.traces.recorded import trace

SEEDS = 6


@pytest.mark.parametrize("transport", PROFILES)
def test_simulated_brokers_keep_the_rules(transport: str) -> None:
    for seed in range(SEEDS):
        checker = check(trace(transport, seed), transport)
        assert not checker.found, f"seed {seed}: {checker.found[0]}"
        assert checker.messages >= 90  # what is poisoned has no outputs


@pytest.mark.parametrize("transport", PROFILES)
def test_a_step_costs_the_same_however_long_the_trace_is(transport: str) -> None:
    short, long = trace(transport, 0), [*trace(transport, 0)]
    for number in range(1, 5):
        later = 10_000.0 * number
        long += [
            replace(event, time=event.time + later, message=f"{event.message}-{number}")
            if event.message
            else replace(event, time=event.time + later)
            for event in short
        ]
    once, often = check(short, transport), check(long, transport)
    assert not often.found
    assert often.steps <= 5 * once.steps + often.events // 10
