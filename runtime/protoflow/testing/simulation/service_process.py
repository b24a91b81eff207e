"""A simulated process that runs a service, and the middleware that observes and disturbs it."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, Unpack

from protoflow.config.settings import Config
from protoflow.context import Context
from protoflow.handler import Handler, HandlerSync
from protoflow.message import Delivery
from protoflow.middleware import Dependencies
from protoflow.outcomes import Outcome
from protoflow.pipeline import Chain, HandlerSpec, Middleware, Next
from protoflow.scheduling.threads import Threads
from protoflow.service.service import Service
from protoflow.testing.simulation.determinism import SimulatedClock
from protoflow.testing.simulation.invariants import Contract
from protoflow.testing.simulation.link import Host
from protoflow.testing.simulation.process import Process
from protoflow.testing.simulation.run_checks import items_of
from protoflow.testing.simulation.transport import SimulatedTransport

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

T = TypeVar("T")

#: The settings that a deploy may change; each deploy changes one of them.
_DEPLOYS: tuple[Mapping[str, Any], ...] = (
    {"retry_in_place": 0.5}, {"max_in_flight": 8}, {"lease": 15.0}, {"shutdown_timeout": 10.0},
    {"max_deliveries_margin": 5},
)  # fmt: skip
#: Seconds that are longer than any lease.
_SLOW = 65.0
#: The usual seconds of a run: `_QUICK` in half of all seeds, otherwise in this range.
_QUICK, _LEAST, _MOST = 0.005, 0.5, 15.0


class SimulationHost(Host, Protocol):
    """The methods of the simulation that its processes call."""

    contract: Contract
    poisoned: dict[str, None]

    def store(self, make: Callable[[], T]) -> T:
        """Returns what `make` made; it is called once for each seed."""
        ...

    def stepped(self, message: str) -> None:
        """Is called after each run, to check the invariants of every step."""


class ServiceProcess(Process):
    """One life of a process that runs a service. Service factories get it as argument.

    Attributes:
        service_name: the name of the factory.
        deploy: the number of deploys before this life.
        clock: the clock of this process.
        transport: its transport to the simulated broker.
        built: its service.
    """

    def __init__(self, host: SimulationHost, name: str, life: int, deploy: int) -> None:
        super().__init__(name, life)
        self.service_name = name
        self.deploy = deploy
        self.clock = SimulatedClock(host.loop.time, lambda: host.choices.number(f"{name}.jitter"))
        # Only the watchdog needs the slower clock, to notice that the process was frozen.
        self.clock.virtual = not host.faults.stalls
        self.transport = SimulatedTransport(host, self, name, self.clock)
        self.built: Service | None = None
        self._host = host

    def store(self, make: Callable[[], T]) -> T:
        """Returns what `make` made; it is called once for each seed.

        The object outlives the process, as a database does. Create objects that must end with the
        process in the factory itself.
        """
        return self._host.store(make)

    def service(
        self,
        *handlers: Handler | HandlerSync,
        config: Config | Mapping[str, Any] | None = None,  # Any: as in Config
        middleware: Chain | Sequence[Middleware] | None = None,
        lifespan: Callable[[Service], AbstractAsyncContextManager[object]] | None = None,
        **dependencies: Unpack[Dependencies],
    ) -> Service:
        """Returns a service on this process's transport, with these handlers.

        Args:
            handlers: instances of generated handler classes.
            config: a whole `Config`, or some settings; the transport is always the simulated one.
            middleware: as for `Service`.
            lifespan: as for `Service`.
            dependencies: as for `Service`.
        """
        if not isinstance(config, Config):
            config = _config({**(config or {}), **self._changed()})
        service = Service(
            config, lifespan=lifespan, middleware=middleware, clock=self.clock,
            transport=self.transport, **dependencies,
        )  # fmt: skip
        service._components.threads = SimulatedThreads(config.sync_threads)
        outermost = service.middleware.names[0]
        service.register_middleware("simulated_faults", _disturbed(self, self._host))
        service.register_middleware("simulation", _seen(self, self._host), before=outermost)
        service.register(*handlers)
        self.built = service
        return service

    def _changed(self) -> Mapping[str, Any]:
        if not self.deploy:
            return {}
        number = self._host.choices.fixed(f"{self.name}.deploy/{self.deploy}")
        return _DEPLOYS[int(number * len(_DEPLOYS))]


_configs: dict[tuple[tuple[str, Any], ...], Config] = {}


def _config(settings: Mapping[str, Any]) -> Config:
    """Returns the config for settings; cached, because building it takes longer than a message."""
    try:
        key = tuple(sorted(settings.items()))
        found = _configs.get(key)
    except TypeError:
        return Config(environ={}, **settings)
    if found is None:
        found = _configs[key] = Config(environ={}, **settings)
    return found


class SimulatedThreads(Threads):
    """Calls functions at once on the loop; results arrive after a time that the seed chooses."""

    def run(self, call: Callable[[], T]) -> asyncio.Future[T]:
        """See `Threads.run`."""
        self.busy += 1
        inside = contextvars.copy_context()
        future: asyncio.Future[T] = asyncio.get_running_loop().run_in_executor(
            None, inside.run, call
        )
        future.add_done_callback(self._ended)
        return future

    def call_on_loop(self, loop: asyncio.AbstractEventLoop, function: Callable[[], T]) -> T:
        """Calls the function: this is the loop's thread."""
        return function()

    def _ended(self, _future: object) -> None:
        self.busy -= 1


def _seen(process: ServiceProcess, host: SimulationHost) -> Middleware:
    """Returns the outermost middleware, which sees the same outcomes as the engine."""

    def see(next: Next, spec: HandlerSpec) -> Next:
        contract = host.contract
        contract.consumes(spec)

        async def run(delivery: Delivery, context: Context) -> Outcome:
            runs = contract.began(process, spec, context)
            try:
                outcome = await next(delivery, context)
            except BaseException:
                contract.cancelled(runs, spec)
                raise
            contract.ended(runs, spec, outcome, context)
            host.stepped(context.id)
            return outcome

        return run

    return see


def _disturbed(process: ServiceProcess, host: SimulationHost) -> Middleware:
    """Returns the innermost middleware, which makes runs slow, fail or crash."""
    site = f"{process.name}.run"
    usual = _usual(host.choices.fixed(f"{process.name}.pace"))

    def disturb(next: Next, spec: HandlerSpec) -> Next:
        async def run(delivery: Delivery, context: Context) -> Outcome:
            fault = host.faults.at(site)
            kind = fault.kind if fault else ""
            if fault is not None:
                host.trace.add(host.loop.now, str(process), f"fault {kind}", context.id, str(fault))
            if kind == "poison":
                host.poisoned[context.id] = None
            if any(item.id in host.poisoned for item in items_of(context)):
                raise ValueError("a poison message")
            if kind == "error":
                raise ConnectionError("a simulated failure")
            if kind == "crash-before":
                host.crash(process)
            takes = min(host.choices.latency(site, usual), _SLOW)
            await asyncio.sleep(_SLOW if kind == "slow-run" else takes)
            outcome = await next(delivery, context)
            if kind == "late-error":
                raise ConnectionError("a simulated failure after the work was done")
            if kind == "crash-after":
                host.crash(process)
                await asyncio.sleep(0)  # never returns, because the process is dead
            return outcome

        return run

    return disturb


def _usual(pace: float) -> float:
    """Returns the usual seconds of a run. During slow runs faults meet many messages."""
    slowness = pace * 2 - 1
    return _QUICK if slowness < 0 else float(_LEAST * (_MOST / _LEAST) ** slowness)
