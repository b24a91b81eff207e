"""One run of one seed: broker, client, processes, faults and invariants."""

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from protoflow.config.settings import Config
from protoflow.message import Delivery, Message
from protoflow.testing.seeds import Seed
from protoflow.testing.simulation.choices import Choices
from protoflow.testing.simulation.client import Client
from protoflow.testing.simulation.faults import Fault, Faults
from protoflow.testing.simulation.invariants import Contract
from protoflow.testing.simulation.ledger import Run
from protoflow.testing.simulation.loop import OUTSIDE, SimulatedLoop, Stuck, start, until
from protoflow.testing.simulation.process import Process
from protoflow.testing.simulation.profiles import Lending, Profile
from protoflow.testing.simulation.replica import Replica, ServiceFactory
from protoflow.testing.simulation.scenario import Invariant, Scenario
from protoflow.testing.simulation.service_process import ServiceProcess
from protoflow.testing.simulation.trace import Trace
from protoflow.testing.simulation.transport import broker_of

T = TypeVar("T")
OnRestart = Callable[["Simulation", str], object]

_ADDRESS = re.compile(r" at 0x[0-9a-f]+", re.ASCII)
#: The duration of faults such as outages, in seconds: shorter or longer than a lease.
_SHORT, _LONG = (0.5, 10.0), (25.0, 50.0)
#: Seconds after which a fault tries again, if its process or call did not exist yet.
_AGAIN = 0.5
#: The most seconds by which a clock jumps.
_JUMP = 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """The violation of an invariant.

    Attributes:
        invariant: the name of the invariant.
        text: what happened.
        message: the id of the message, or empty.
        time: when it happened.
    """

    invariant: str
    text: str
    message: str
    time: float


class Simulation:
    """One run of one seed; scenarios and invariants get it.

    Attributes:
        seed: the seed of all choices.
        publisher: a `Publisher` outside of all processes.
        trace: the events so far.
    """

    def __init__(
        self, seed: Seed, services: Sequence[tuple[str, ServiceFactory]], scenario: Scenario,
        profile: Profile, planned: Sequence[Fault], invariants: Sequence[Invariant],
        on_restart: OnRestart | None,
    ) -> None:  # fmt: skip
        self.seed = seed.number
        self.scenario = scenario
        self.choices = Choices(seed.number, seed.halvings)
        self.loop = SimulatedLoop(seed.number, lambda: self.choices.latency("thread", 0.02))
        self.loop.set_exception_handler(self._unhandled)
        self.trace = Trace()
        self.faults = Faults(planned, seed.only, self.loop.time)
        self.contract = Contract(
            self.loop.time, self.trace, self.fail,
            lambda delivery: self.broker.holds_receipt(delivery.receipt),
            lambda delivery: self.broker.ended(delivery.receipt),
        )  # fmt: skip
        self.broker = broker_of(profile)(self.loop, profile, self.contract)
        self.publisher = Client(self, _CONFIG)
        self.failure: Failure | None = None
        self.poisoned: dict[str, None] = {}
        self.processes: list[ServiceProcess] = []
        self.replicas = [Replica(self, name, build) for name, build in services]
        self.on_restart = on_restart
        self.crashes = 0
        self.ending = False
        self._stores: dict[Any, Any] = {}
        self._stepwise = [each for each in invariants if each.every_step]
        self._invariants = invariants
        self._over: asyncio.Future[None] = self.loop.create_future()

    # For scenarios and invariants.

    @property
    def now(self) -> float:
        """Returns the virtual time in seconds."""
        return self.loop.now

    @property
    def runs(self) -> Sequence[Run]:
        """Returns every run of a handler so far."""
        return self.contract.runs

    @property
    def dead_letters(self) -> Sequence[Message]:
        """Returns every message that was dead-lettered so far."""
        return self.contract.dead_letters

    def store(self, make: Callable[[], T]) -> T:
        """Returns what `make` made; it is called once for each seed."""
        if make not in self._stores:
            self._stores[make] = make()
        found: T = self._stores[make]
        return found

    def random(self) -> float:
        """Returns a number from 0 up to 1, chosen by the seed."""
        return self.choices.number("scenario")

    async def sleep(self, seconds: float) -> None:
        """Lets virtual time pass."""
        await asyncio.sleep(seconds)

    def restarting(self, name: str) -> None:
        """Is called before a service is built again."""
        if self.on_restart is not None:
            self.on_restart(self, name)

    # For links and processes.

    def fail(self, invariant: str, text: str, message: str = "") -> None:
        """Notes the violation of an invariant, which ends the run. Only the first one counts."""
        if self.failure is None:
            text = _ADDRESS.sub("", text)  # differs in each run
            self.failure = Failure(invariant, text, message, self.now)
            self.trace.add(self.now, "", "VIOLATED", message, f"{invariant}: {text}")
            if not self._over.done():
                self._over.set_result(None)

    def crash(self, process: Process) -> None:
        """Kills a process, and starts it again some time later."""
        if not process.alive or not isinstance(process, ServiceProcess):
            return
        process.alive = False
        self.crashes += 1
        self.trace.add(self.now, str(process), "crash")
        self.contract.died(process)
        if self.broker.profile.lending is Lending.CONNECTION:
            self.loop.call_later(0.01, self._disconnected, process, context=OUTSIDE)
        replica = next(each for each in self.replicas if each.process is process)
        wait = self.choices.between(f"{process.name}.restart", 0.2, 8.0)
        self.loop.call_later(wait, replica.start, context=OUTSIDE)

    def _disconnected(self, process: ServiceProcess) -> None:
        for subscription in process.transport.subscriptions:
            self.broker.leave(subscription.member, killed=True)

    def lost(self, process: Process, deliveries: Sequence[Delivery]) -> None:
        """Notes that a process lost leases."""
        self.contract.lost(process, deliveries)

    def stepped(self, message: str) -> None:
        """Checks the invariants of every step."""
        for each in self._stepwise:
            self._check(each, message)

    # For the explorer.

    def run(self, then: Callable[[], Awaitable[None]] | None = None) -> None:
        """Runs the seed, then `then`; `failure` is set if an invariant was violated."""
        main = start(self.loop, self._main(then), None)
        main.add_done_callback(self._main_ended)
        try:
            self.loop.run_until(self._over)
        except Stuck as error:
            self.fail("liveness", str(error))

    def close(self) -> None:
        """Discards the processes."""
        self.trace.close()
        self.loop.finish([*self.processes])

    def _main_ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            lines = traceback.format_exception_only(error)
            self.fail("scenario", f"it raised {''.join(lines).strip()}")
        if not self._over.done():
            self._over.set_result(None)

    async def _main(self, then: Callable[[], Awaitable[None]] | None) -> None:
        for replica in self.replicas:
            replica.start()
        await until(lambda: all(replica.running for replica in self.replicas), 0.01)
        for fault in self.faults.timed:
            self.loop.call_later(fault.at / 1000, self._begin, fault, context=OUTSIDE)
        await self.scenario.publish(self)
        await asyncio.sleep(max(0.0, self.scenario.duration - self.now))
        # one fault may delay the calls that another fault targets
        latest = self.now + self.scenario.patience
        await until(
            lambda: not self.faults.waiting or self.now >= latest or not self._left(), _AGAIN
        )
        self.faults.over = True
        await self._quiescence()
        self.contract.quiescent()
        for each in self._invariants:
            self._check(each)
        if then is not None:
            await then()
        self.ending = True
        for replica in self.replicas:
            replica.stop()
        await until(lambda: all(replica.ended for replica in self.replicas), 0.1)

    async def _quiescence(self) -> None:
        deadline, pause = self.now + self.scenario.patience, 0.05
        while left := self._left():
            if self.now > deadline:
                self.fail("liveness", f"after {self.scenario.patience:g} s: {', '.join(left)}")
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 10.0)
        for replica in self.replicas:
            service = replica.process.built if replica.process else None
            for one in service.subscriptions if service is not None else ():
                if (count := one.in_flight.count) != 0 or one.in_flight.bytes != 0:
                    self.fail("in flight", f"{count} in {one.settings.name} at the end")

    def _left(self) -> list[str]:
        left = self.broker.unfinished()
        moving = [replica.name for replica in self.replicas if not replica.settled]
        return left + [f"{name} is not at rest" for name in moving]

    def _check(self, invariant: Invariant, message: str = "") -> None:
        try:
            invariant.check(self)
        except AssertionError as error:
            # pytest appends the expression after the first line.
            text = str(error).partition("\n")[0] or "it does not hold"
            self.fail(invariant.name, text, message)

    def _begin(self, fault: Fault) -> None:
        """Starts a fault that begins at a time."""
        replica = next((each for each in self.replicas if each.name == fault.target), None)
        process = replica.process if replica is not None else None
        if self.faults.over:
            return
        if replica is not None and not replica.running:
            self.loop.call_later(_AGAIN, self._begin, fault, context=OUTSIDE)
            return
        self.faults.timed.remove(fault)
        self.faults.happened.append(fault)
        number = self.choices.fixed(str(fault))
        lasts = self.choices.between("fault.lasts", *(_LONG if number < 0.5 else _SHORT))
        self.trace.add(self.now, fault.target or "broker", f"fault {fault.kind}", "", str(fault))
        if fault.kind == "outage":
            self.broker.down = True
            self.loop.call_later(lasts, setattr, self.broker, "down", False, context=OUTSIDE)
        elif fault.kind == "dead-letters-down":
            self.broker.dead_letters_down = True
            self.loop.call_later(
                lasts, setattr, self.broker, "dead_letters_down", False, context=OUTSIDE
            )
        elif process is not None and fault.kind == "stall":
            process.stand_still(self.now, lasts)
        elif process is not None and fault.kind == "clock":
            process.clock.offset += (number - 0.5) * 2 * _JUMP
        elif fault.kind == "rebalance":
            self.broker.rebalance_all()
        elif replica is not None and fault.kind == "deploy":
            replica.deploys += 1
            replica.stop()

    def _unhandled(self, _loop: object, context: dict[str, Any]) -> None:
        """Reports an error in a callback that no code caught."""
        error = context.get("exception")
        if context.get("handle") is not None or "callback" in str(context.get("message", "")):
            self.fail("errors", f"{context.get('message')}: {error!r}")


_CONFIG = Config(environ={})
