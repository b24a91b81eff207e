"""Records a seed of the simulation as the faults of real brokers are recorded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from protoflow.message import Message
from protoflow.testing import Scenario
from protoflow.testing.broker_traces import Event, RecordedTransport
from protoflow.testing.seeds import Seed
from protoflow.testing.simulation import service_process
from protoflow.testing.simulation.explorer import Explorer, named
from protoflow.testing.simulation.invariants import Contract
from protoflow.testing.simulation.process import Process
from protoflow.testing.simulation.transport import SimulatedTransport
from protoflow.testing.simulation.world import Simulation

from tests.simulation.sagas import SERVICES, orders


class _Recording:
    """The trace of one seed."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._calls = 0
        self._known: set[str] = set()

    def write(self, event: Event) -> None:
        if event.kind == "publish":
            self._known.add(event.message)
        self.events.append(event)

    def stored(self, now: float, message: Message) -> None:
        """What the outside world publishes goes to the broker directly."""
        if message.id in self._known:
            return
        self._calls += 1
        fields: dict[str, Any] = {
            "time": now, "member": "", "topic": message.topic, "message": message.id,
            "key": (message.key or b"").decode(), "call": self._calls,
        }  # fmt: skip
        self.write(Event(kind="publish", **fields))
        self.write(Event(kind="published", detail="stored", **fields))


def record(transport: str, seed: int, patch: pytest.MonkeyPatch) -> list[Event]:
    """Runs a seed of the default scenario; returns its trace."""
    recording = _Recording()

    def recorded(host: Simulation, process: Process, name: str, clock: Any) -> Any:
        real = SimulatedTransport(host, process, name, clock)
        return RecordedTransport(real, str(process), recording.write, host.loop.time)

    def before(owner: type, name: str, note: Callable[..., object]) -> None:
        real = getattr(owner, name)

        def call(self: Any, *args: Any) -> Any:
            note(self, *args)
            return real(self, *args)

        patch.setattr(owner, name, call)

    def crashed(simulation: Simulation, process: Process) -> None:
        if process.alive:
            recording.write(Event(time=simulation.now, member=str(process), kind="crash"))

    patch.setattr(service_process, "SimulatedTransport", recorded)
    before(Simulation, "crash", crashed)
    before(Contract, "stored", lambda self, message, _: recording.stored(self._now(), message))
    explorer = Explorer(
        services=named(SERVICES), scenario=Scenario(publish=orders), as_=transport,
        invariants=(), on_restart=None, snapshot=None,
    )  # fmt: skip
    try:
        simulation = explorer.run(Seed(seed))
    finally:
        patch.undo()
    assert simulation.failure is None
    return recording.events


@cache
def trace(transport: str, seed: int) -> tuple[Event, ...]:
    """Returns the trace of a seed, recorded once."""
    return tuple(record(transport, seed, pytest.MonkeyPatch()))
