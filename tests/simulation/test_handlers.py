"""Bugs of handlers: found, shrunk, named, repeated by one line."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.wrappers_pb2 import StringValue
from protoflow.context import Context
from protoflow.service.service import Service
from protoflow.testing import (
    Scenario,
    ServiceProcess,
    Simulation,
    SimulationFailed,
    invariant,
    simulate,
)
from protoflow.testing.transports.tasks import task_handler

from tests.simulation.sagas import FREE, IN_TURN, orders


class CarelessBank:
    """Charges as often as it is asked."""

    def __init__(self) -> None:
        self.charges: dict[str, int] = {}

    async def charge(self, order: str) -> None:
        await asyncio.sleep(0.01)
        self.charges[order] = self.charges.get(order, 0) + 1


def billing(process: ServiceProcess) -> Service:
    bank = process.store(CarelessBank)

    async def bill(order: StringValue, context: Context) -> None:
        await bank.charge(order.value)

    return process.service(task_handler(bill, "orders", "billing", IN_TURN))


@invariant(every_step=True)
def charged_once(simulation: Simulation) -> None:
    for order, count in simulation.store(CarelessBank).charges.items():
        assert count == 1, f"{order} was charged {count} times"


def failure_of(**options: object) -> SimulationFailed:
    with pytest.raises(SimulationFailed) as failed:
        simulate(billing, scenario=orders, **options)  # type: ignore[arg-type]
    return failed.value


def test_a_careless_charge_is_found_shrunk_and_repeated() -> None:
    failed = failure_of(invariants=[charged_once], seeds=20)
    assert failed.failure.invariant == "charged_once"
    assert failed.seed.only is not None
    assert len(failed.seed.only) == 1
    text = str(failed)
    assert "NOT REPEATABLE" not in text
    assert f"--protoflow-seed '{failed.seed}'" in text
    assert f"  what happened to {failed.failure.message}:" in text
    again = failure_of(invariants=[charged_once], seeds=[str(failed.seed)])
    assert again.trace.text() == failed.trace.text()


def test_the_check_of_idempotency_names_the_handler() -> None:
    failed = failure_of(
        seeds=1,
        idempotent=True,
        snapshot=lambda simulation: dict(simulation.store(CarelessBank).charges),
    )
    assert failed.failure.invariant == "idempotency"
    assert "protoflow.testing.Tasks.billing has another effect" in str(failed)


def audit(process: ServiceProcess) -> Service:
    seen: list[str] = []  # in memory: gone with the process, though the message is settled

    async def note(order: StringValue, context: Context) -> None:
        written = process.store(Audit).rows
        seen.append(order.value)
        written[:] = seen

    return process.service(task_handler(note, "orders", "audit", FREE))


class Audit:
    """A file that is written whole each time."""

    def __init__(self) -> None:
        self.rows: list[str] = []


def test_state_in_the_memory_of_a_process_is_found() -> None:
    @invariant
    def nothing_is_missing(simulation: Simulation) -> None:
        rows = set(simulation.store(Audit).rows)
        assert len(rows) == 30, f"{30 - len(rows)} orders are missing"

    with pytest.raises(SimulationFailed, match="orders are missing"):
        simulate(audit, scenario=orders, invariants=[nothing_is_missing], seeds=20)


def test_on_restart_and_divergence() -> None:
    restarted: list[str] = []
    runs = 0

    def unsteady(process: ServiceProcess) -> Service:
        async def work(order: StringValue, context: Context) -> None:
            nonlocal runs
            runs += 1
            await asyncio.sleep(runs / 1000)  # not from the seed: differs in each run of it

        return process.service(task_handler(work, "orders", "unsteady", FREE))

    @invariant
    def never_holds(simulation: Simulation) -> None:
        raise AssertionError

    with pytest.raises(SimulationFailed) as failed:
        simulate(
            unsteady,
            scenario=Scenario(publish=orders, crashes=6),
            invariants=[never_holds],
            on_restart=lambda _simulation, name: restarted.append(name),
            seeds=1,
        )
    assert "NOT REPEATABLE: two runs of this seed differ first at" in str(failed.value)
    assert "event " in str(failed.value)
    assert "unsteady" in restarted
