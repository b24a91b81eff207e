"""The engine and the kit, through bad days; and what a failure says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from protoflow.testing import Scenario, simulate

from tests.simulation.sagas import SERVICES, orders


@pytest.mark.protoflow_seeds(25)
@pytest.mark.parametrize("as_", ["sqlite", "jetstream", "rabbitmq", "kafka"])
def test_the_engine_survives(as_: str, protoflow_seeds: Sequence[int]) -> None:
    report = simulate(*SERVICES, scenario=orders, as_=as_, seeds=protoflow_seeds)
    assert report.runs > 80 * report.seeds


def test_a_seed_has_thirty_sagas_and_bad_luck() -> None:
    report = simulate(*SERVICES, scenario=orders, seeds=10)
    assert report.deliveries > 1000 - 100
    assert sum(report.faults.values()) >= 50
    assert report.crashes >= 20


def test_without_faults_nothing_is_repeated() -> None:
    scenario = Scenario(publish=orders, faults=0, crashes=0)
    report = simulate(*SERVICES, scenario=scenario, seeds=3)
    assert report.runs == report.deliveries == 3 * 90
