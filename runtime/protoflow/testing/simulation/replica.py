"""A replica of a service, which runs in one process after another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from protoflow.errors import TransportError
from protoflow.service.service import Service
from protoflow.testing.simulation.loop import OUTSIDE, start
from protoflow.testing.simulation.service_process import ServiceProcess, SimulationHost

ServiceFactory = Callable[[ServiceProcess], Service]

#: Seconds that a drain may take beyond `shutdown_timeout`.
_GRACE = 1.0


class ReplicaHost(SimulationHost, Protocol):
    """The part of the simulation that a replica uses."""

    processes: list[ServiceProcess]
    ending: bool

    def restarting(self, name: str) -> None:
        """Is called before a service is built again."""

    def fail(self, invariant: str, text: str, message: str = "") -> None:
        """Reports the violation of an invariant."""


class Replica:
    """Runs a service in one process after another."""

    def __init__(self, simulation: ReplicaHost, name: str, build: ServiceFactory) -> None:
        self.name = name
        self.process: ServiceProcess | None = None
        self.lives = 0
        self.deploys = 0
        self.stopped: asyncio.Future[None] | None = None
        self._simulation = simulation
        self._build = build

    def start(self) -> None:
        """Starts a process."""
        simulation = self._simulation
        self.lives += 1
        if self.lives > 1:
            simulation.restarting(self.name)
        process = ServiceProcess(simulation, self.name, self.lives, self.deploys)
        self.process = process
        self.stopped = None
        simulation.processes.append(process)
        simulation.trace.add(simulation.loop.now, str(process), "start")
        start(simulation.loop, self._live(process), process)

    @property
    def running(self) -> bool:
        """Returns whether its service has started and is not stopping."""
        alive = self.process is not None and self.process.alive
        return alive and self.stopped is not None and not self.stopped.done()

    @property
    def settled(self) -> bool:
        """Returns whether it has nothing to do."""
        service = self.process.built if self.process is not None else None
        return (
            self.running
            and service is not None
            and all(one.settled for one in service.subscriptions)
        )

    @property
    def ended(self) -> bool:
        """Returns whether its process has ended."""
        return self.process is None or not self.process.alive

    def stop(self) -> None:
        """Asks the service to drain."""
        if self.stopped is not None and not self.stopped.done():
            self.stopped.set_result(None)

    async def _live(self, process: ServiceProcess) -> None:
        simulation = self._simulation
        service = self._build(process)
        if service is not process.built:
            raise TypeError(f"{self.name}: return what process.service() makes")
        try:
            await service.start()
        except TransportError:
            process.alive = False  # the process exits, and a supervisor would start it again
            simulation.loop.call_later(1.0, self.start, context=OUTSIDE)
            return
        self.stopped = simulation.loop.create_future()
        await self.stopped
        began = simulation.loop.now
        simulation.trace.add(began, str(process), "stopping")
        simulation.contract.disturb_all()
        await service.stop()
        took, limit = simulation.loop.now - began, service.config.shutdown_timeout
        simulation.trace.add(simulation.loop.now, str(process), "stopped")
        for one in service.subscriptions:
            if one.in_flight.count < 0 or one.in_flight.bytes < 0:
                text = f"{one.in_flight.count} in {one.settings.name} after the drain"
                simulation.fail("in flight", text, "")
        if took > limit + _GRACE:
            simulation.fail("drain", f"{process} drained for {took:.3f} s of {limit:g} s", "")
        process.alive = False
        if not simulation.ending:
            simulation.loop.call_later(0.2, self.start, context=OUTSIDE)
