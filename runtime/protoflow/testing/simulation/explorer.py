"""Runs seeds; repeats, shrinks and explains the first one that fails."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from protoflow.counted import counted
from protoflow.error_codes import SIMULATION, coded
from protoflow.testing.seeds import Seed, seeds_of
from protoflow.testing.simulation.choices import Choices
from protoflow.testing.simulation.determinism import determined
from protoflow.testing.simulation.faults import plan
from protoflow.testing.simulation.idempotency import Snapshot, check_idempotency
from protoflow.testing.simulation.profiles import profile_of
from protoflow.testing.simulation.replica import ServiceFactory
from protoflow.testing.simulation.report import explain
from protoflow.testing.simulation.scenario import Invariant, Publish, Scenario
from protoflow.testing.simulation.shrinking import shrink
from protoflow.testing.simulation.trace import Trace, divergence
from protoflow.testing.simulation.world import Failure, OnRestart, Simulation

#: The number of seeds between two garbage collections.
_COLLECT = 25


class SimulationFailed(AssertionError):  # noqa: N818  what happened
    """A seed violates an invariant.

    Attributes:
        seed: the seed with the fewest faults that still fails.
        failure: the violation.
        trace: every event of the run.
        divergence: the first difference between two runs of the seed; None if there is none.
    """

    def __init__(
        self, text: str, seed: Seed, failure: Failure, trace: Trace, divergence: str | None
    ) -> None:
        super().__init__(text)
        self.seed = seed
        self.failure = failure
        self.trace = trace
        self.divergence = divergence


@dataclass
class Report:
    """What a simulation did.

    Attributes:
        seeds: the number of seeds that ran.
        runs: the number of runs of handlers.
        deliveries: the number of deliveries.
        crashes: the number of processes that were killed.
        faults: the number of faults that happened, by kind.
        seconds: the CPU time.
    """

    seeds: int = 0
    runs: int = 0
    deliveries: int = 0
    crashes: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, simulation: Simulation) -> None:
        """Adds the figures of one run."""
        self.seeds += 1
        self.runs += len(simulation.runs)
        self.deliveries += simulation.broker.lent
        self.crashes += simulation.crashes
        for fault in simulation.faults.happened:
            self.faults[fault.kind] = self.faults.get(fault.kind, 0) + 1

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items()))
        return (
            f"{counted(self.seeds, 'seed')}: {counted(self.runs, 'run')}, "
            f"{counted(self.deliveries, 'delivery', 'deliveries')}, "
            f"{counted(sum(self.faults.values()), 'fault')}, "
            f"{counted(self.crashes, 'crash', 'crashes')}, "
            f"{self.seconds:.1f} s of CPU ({kinds})"
        )


@dataclass(frozen=True, kw_only=True)
class Explorer:
    """Runs seeds of one scenario."""

    services: Sequence[tuple[str, ServiceFactory]]
    scenario: Scenario
    as_: str
    invariants: Sequence[Invariant]
    on_restart: OnRestart | None
    snapshot: Snapshot | None

    def run(self, seed: Seed) -> Simulation:
        """Runs one seed."""
        names = [name for name, _ in self.services]
        profile, scenario = profile_of(self.as_), self.scenario
        choices = Choices(seed.number)
        planned = plan(
            choices, profile, names, scenario.faults, scenario.crashes, scenario.duration
        )
        simulation: Simulation | None = None

        def now() -> float:
            return simulation.now if simulation is not None else 0.0

        def refused(text: str) -> None:
            if simulation is not None:
                simulation.fail("determinism", text)

        with determined(seed.number, now, refused):
            simulation = Simulation(
                seed, self.services, scenario, profile, planned, self.invariants,
                self.on_restart,
            )  # fmt: skip
            try:
                if self.snapshot is None:
                    simulation.run()
                else:
                    check_idempotency(simulation, self.snapshot)
            finally:
                simulation.close()
        return simulation

    def explore(self, seeds: Sequence[Seed], seconds: float | None) -> Report:
        """Runs seeds until one fails. Raises SimulationFailed."""
        report = Report()
        began, cpu = time.monotonic(), time.process_time()
        with _quiet_logs(), _lasting_objects():
            for seed in seeds:
                if seconds is not None and time.monotonic() - began > seconds:
                    break
                simulation = self.run(seed)
                report.add(simulation)
                if simulation.failure is not None:
                    self._report(seed, simulation, simulation.failure)
                if report.seeds % _COLLECT == 0:
                    gc.collect()
                    gc.freeze()  # the remaining objects are never inspected again
        report.seconds = time.process_time() - cpu
        return report

    def _report(self, seed: Seed, first: Simulation, failure: Failure) -> None:
        differs = divergence(first.trace, self.run(seed).trace)
        happened = [str(fault) for fault in first.faults.happened]
        shrunk, last = shrink(
            replace(seed, only=tuple(happened)), lambda smaller: self._fails(smaller, failure)
        )
        if last is None or last.failure is None:
            shrunk, last = seed, first  # the seed fails only with the faults that changed nothing
        found = last.failure or failure
        text = explain(seed, shrunk, found, last.faults.happened, last.trace, differs)
        raise SimulationFailed(text, shrunk, found, last.trace, differs)

    def _fails(self, seed: Seed, failure: Failure) -> Simulation | None:
        simulation = self.run(seed)
        found = simulation.failure
        same = found is not None and found.invariant == failure.invariant
        return simulation if same else None


class _quiet_logs:  # noqa: N801  a context manager
    """Silences warnings, because the simulation causes their reasons on purpose."""

    def __enter__(self) -> None:
        self._level = logging.getLogger("protoflow").level
        logging.getLogger("protoflow").setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("protoflow").setLevel(self._level)


@contextmanager
def _lasting_objects() -> Iterator[None]:
    """Exempts the objects that exist before the first seed from garbage collection."""
    enabled, frozen = gc.isenabled(), gc.get_freeze_count()
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        if not frozen:
            gc.unfreeze()
        if enabled:
            gc.enable()


def simulate(
    *services: ServiceFactory,
    scenario: Scenario | Publish,
    seeds: int | Sequence[int | str] | None = None,
    seconds: float | None = None,
    as_: str = "sqlite",
    invariants: Sequence[Invariant] = (),
    on_restart: OnRestart | None = None,
    idempotent: bool = False,
    snapshot: Snapshot | None = None,
) -> Report:
    """Runs services on a simulated broker, with the faults that each seed chooses.

    Args:
        services: functions that take the process and return `process.service(...)`. A function is
            called again whenever its process is started again. To run a service in two processes,
            give its function twice.
        scenario: an `async def` that publishes, or a `Scenario`.
        seeds: the number of seeds, or the seeds; default `--protoflow-seeds` of pytest, else 100.
        seconds: stops after this time, even if seeds remain.
        as_: the transport that is simulated: sqlite, kafka, jetstream or rabbitmq.
        invariants: your own invariants, which are checked besides the contract; made with
            `@invariant`.
        on_restart: called with the simulation and the name of a service before it is built again.
        idempotent: delivers every message twice, without faults, and compares the effects.
        snapshot: for `idempotent`: returns the effects so far, as a value that can be compared.

    Returns:
        The figures of the runs.

    Raises:
        SimulationFailed: a seed violated an invariant; the text has the line that repeats it.
        ConfigError: the transport cannot be simulated.
    """
    if not isinstance(scenario, Scenario):
        scenario = Scenario(publish=scenario)
    if idempotent and snapshot is None:
        raise ValueError(
            coded("idempotent=True compares snapshots: give snapshot=, a function", SIMULATION)
        )
    explorer = Explorer(
        services=named(services), scenario=scenario, as_=as_, invariants=invariants,
        on_restart=on_restart, snapshot=snapshot if idempotent else None,
    )  # fmt: skip
    profile_of(as_)
    return explorer.explore(seeds_of(seeds), seconds)


def named(services: Sequence[ServiceFactory]) -> Sequence[tuple[str, ServiceFactory]]:
    """Returns services with the names of their processes."""
    names = [getattr(each, "__name__", type(each).__name__) for each in services]
    counts: dict[str, int] = {}
    result: list[tuple[str, ServiceFactory]] = []
    for name, build in zip(names, services, strict=True):
        counts[name] = counts.get(name, 0) + 1
        result.append((name if names.count(name) == 1 else f"{name}-{counts[name]}", build))
    return result
