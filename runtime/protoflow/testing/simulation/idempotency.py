"""The check of idempotency: it delivers every message twice, and compares the effects."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from copy import deepcopy
from pprint import pformat
from typing import Any

from protoflow.testing.simulation.ledger import Ledger
from protoflow.testing.simulation.loop import until
from protoflow.testing.simulation.world import Simulation

#: The most lines of a difference that are shown.
_LINES = 10

Snapshot = Callable[[Simulation], Any]  # Any: every value that can be compared


def check_idempotency(simulation: Simulation, snapshot: Snapshot) -> None:
    """Runs the scenario without faults, then delivers each message to each group again.

    Messages are delivered one at a time. The snapshots before and after each must be equal.
    """
    simulation.faults.over = True
    simulation.faults.timed = []
    simulation.run(then=lambda: _twice(simulation, snapshot))


async def _twice(simulation: Simulation, snapshot: Snapshot) -> None:
    simulation.broker.repeats = False
    for ledger in [*simulation.contract.ledgers.values()]:
        for message in [*ledger.records]:
            if ledger.records[message].successes and simulation.failure is None:
                await _again(simulation, snapshot, ledger, message)


async def _again(simulation: Simulation, snapshot: Snapshot, ledger: Ledger, message: str) -> None:
    broker, runs = simulation.broker, simulation.contract.runs
    group = broker.state.topics[ledger.topic].groups[ledger.group]
    before, count, known = (
        deepcopy(snapshot(simulation)),
        len(runs),
        len(simulation.contract.stored_ids),
    )
    ledger.disturbances += 1
    ledger.records[message].copies += 1
    broker.hand_again(group, simulation.contract.stored_ids[message])
    replicas = simulation.replicas
    await until(lambda: not broker.unfinished() and all(each.settled for each in replicas), 0.05)
    handler = runs[count].handler if len(runs) > count else f"group {ledger.group}"
    after = snapshot(simulation)
    if after != before:
        simulation.fail(
            "idempotency",
            f"{handler} has another effect when the message is delivered again:\n"
            + _difference(before, after),
            message,
        )
    elif len(simulation.contract.stored_ids) != known:
        simulation.fail(
            "idempotency",
            f"{handler} publishes outputs with other ids when the message is delivered again",
            message,
        )


def _difference(before: object, after: object) -> str:
    """Returns the first lines in which two snapshots differ."""
    lines = difflib.unified_diff(
        pformat(before).splitlines(), pformat(after).splitlines(), lineterm="", n=0
    )
    shown = [line for line in lines if not line.startswith(("---", "+++", "@@"))][:_LINES]
    return "\n".join(f"    {line}" for line in shown)
