"""The engine and the kit, through bad days; and what a failure says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from protoflow.testing import Scenario, simulate
from protoflow.testing.seeds import Seed
from protoflow.testing.simulation.explorer import Explorer, named

from tests.simulation.sagas import CANCELLED, SAGAS, SERVICES, orders


@pytest.mark.protoflow_seeds(25)
@pytest.mark.parametrize("as_", ["sqlite", "jetstream", "rabbitmq", "kafka"])
def test_the_engine_survives(as_: str, protoflow_seeds: Sequence[int]) -> None:
    report = simulate(*SERVICES, scenario=orders, as_=as_, seeds=protoflow_seeds)
    assert report.runs > 80 * report.seeds


@pytest.mark.parametrize("as_", ["sqlite", "jetstream", "rabbitmq", "kafka"])
def test_each_seed_has_thirty_sagas_and_bad_luck(as_: str) -> None:
    explorer = Explorer(
        services=named(SERVICES), scenario=Scenario(publish=orders), as_=as_, invariants=(),
        on_restart=None, snapshot=None,
    )  # fmt: skip
    assert len(SERVICES) == 3
    for number in range(10):
        seed = explorer.run(Seed(number))
        topics = [message.topic for message in seed.contract.stored_ids.values()]
        faults = [each for each in seed.faults.happened if not each.kind.startswith("crash")]
        assert topics.count("orders") >= 30
        assert seed.broker.lent >= 100
        assert len(faults) >= 5
        assert seed.crashes >= 2


def test_without_faults_nothing_is_repeated_but_what_handlers_cancel() -> None:
    scenario = Scenario(publish=orders, faults=0, crashes=0)
    report = simulate(*SERVICES, scenario=scenario, seeds=3)
    assert report.deliveries == 3 * 3 * SAGAS
    assert report.runs == report.deliveries + 3 * CANCELLED
