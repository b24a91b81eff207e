"""The service: ties registrations, transport, schedulers and lifetime together."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Unpack

from protoflow.clock import Clock
from protoflow.config import Config
from protoflow.connection import transport_for
from protoflow.emitting import Emitting, publication_of
from protoflow.errors import ConfigError, ProtoflowError, RegistrationError
from protoflow.observing import Observing
from protoflow.pipeline import Chain, Middleware, chain_of
from protoflow.publishing import Publishing
from protoflow.registering import Registering
from protoflow.registrations.plan import plan
from protoflow.scheduling.assembly import assemble
from protoflow.scheduling.scheduler import Scheduler
from protoflow.scheduling.threads import Threads
from protoflow.stats import classify_error
from protoflow.transport import Capabilities, Topology, Transport

if TYPE_CHECKING:
    from protoflow.middleware import Dependencies

_log = logging.getLogger("protoflow.service")


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """Whether the process should live, and whether it does its work.

    Attributes:
        live: no loop has died.
        ready: connected, subscribed, nothing paused by a failure.
        problems: what is wrong, by subscription or part.
    """

    live: bool
    ready: bool
    problems: dict[str, str]


class Service(Observing, Registering, Emitting):
    """Runs handlers. A `Publisher`, too: what it publishes goes out at once.

    Args:
        config: the settings; read from the environment if not given.
        lifespan: entered before anything is consumed and left after everything is settled.
        middleware: a `Chain`, or middlewares to stand next to the handlers.
        clock: time and randomness; for tests.
        transport: instead of the one that the settings name; for tests.
        dependencies: optional collaborators of the default chain; see `Dependencies`.
    """

    def __init__(
        self,
        config: Config | None = None,
        *,
        lifespan: Callable[[Service], AbstractAsyncContextManager[object]] | None = None,
        middleware: Chain | Sequence[Middleware] | None = None,
        clock: Clock | None = None,
        transport: Transport | None = None,
        **dependencies: Unpack[Dependencies],
    ) -> None:
        super().__init__()
        self.config = config or Config()
        self._clock = clock or Clock()
        self._lifespan = lifespan
        self._dependencies = dependencies
        self._chain = _chain(middleware, dependencies)
        self._outbox = dependencies.get("outbox")
        self.books.classify = dependencies.get("error_classifier") or classify_error
        self._transport = transport or transport_for(self.config, self._clock)
        self._publishing = Publishing(self.config, self._transport, self._clock, self.books.sent)
        self._publishing.encode.validator = dependencies.get("validator")
        self._schedulers: list[Scheduler] = []
        self._threads = Threads(self.config.sync_threads)
        self._resources = contextlib.AsyncExitStack()
        self._stop_requested: asyncio.Event | None = None
        self._crash: BaseException | None = None
        self._started = False
        self._running = False

    def register_middleware(
        self,
        name: str,
        middleware: Middleware,
        *,
        before: str | None = None,
        after: str | None = None,
    ) -> None:
        """Adds a middleware: outside of `before`, inside of `after`, else next to the handlers.

        Raises:
            ConfigError: the name is taken, or the neighbour is not there.
            RegistrationError: the service has started.
        """
        if self._closed:
            raise RegistrationError(f"middleware {name}: register before the service starts")
        self._chain = self._chain.add(name, middleware, before=before, after=after)

    # Lifetime.

    async def run(self) -> None:
        """Runs until SIGTERM, SIGINT or `request_stop`, then drains.

        Raises:
            ProtoflowError: the service cannot start.
            BaseException: whatever killed a part of the runtime; nothing dies in silence.
        """
        self._stop_requested = asyncio.Event()
        with _signals(self._signalled) if self.config.handle_signals else contextlib.nullcontext():
            async with self:
                await self._stop_requested.wait()
        if self._crash is not None:
            raise self._crash

    def request_stop(self) -> None:
        """Makes `run` drain and return."""
        if self._stop_requested is not None:
            self._stop_requested.set()

    async def start(self) -> None:
        """Connects, makes or verifies the topology, and begins to consume; `stop` ends it.

        Raises:
            ConfigError, RegistrationError, CapabilityError: with all mistakes.
            TransportError: the broker is not there, or refuses.
        """
        if self._started:
            raise ProtoflowError("the service was started already; make a new one")
        self._started = self._closed = True
        try:
            await self._start()
        except BaseException:
            self._running = False
            schedulers, self._schedulers = self._schedulers, []
            for scheduler in schedulers:
                await scheduler.stop(0.0)
            await self._close()
            raise

    async def _start(self) -> None:
        self._chain.check()
        await self._transport.open()
        self._resources.push_async_callback(self._transport.close)
        self._publishing.trace(self._dependencies.get("tracer_provider"))
        plans = plan(self._registrations, self.config, self.capabilities)
        schedulers = [
            assemble(
                subscription, self.config, self._chain, self._transport, self._publishing,
                self._threads, self._clock, self.books, self._crashed,
            )
            for subscription in plans
        ]  # fmt: skip
        for message_class in self._messages:
            self._publishing.encode.topic_of(publication_of(message_class))
        topics = self._topics()
        topology = Topology(
            subscriptions=tuple(subscription.settings for subscription in plans), topics=topics
        )
        await self._transport.ensure(topology, self.config.topology)
        self._publishing.known(topics)
        await self._start_relay(self._resources)
        if self._lifespan is not None:
            await self._resources.enter_async_context(self._lifespan(self))
        for scheduler in schedulers:
            await scheduler.start()
            self._schedulers.append(scheduler)
        self._running = True
        await self._start_configured_web()
        _log.info("%d subscriptions on %s", len(schedulers), self.config.url.safe)

    def _topics(self) -> tuple[str, ...]:
        """Every topic that handlers publish to."""
        publications = [item.publication for item in self._registrations if item.publication]
        return tuple(sorted({self._publishing.encode.topic_of(item) for item in publications}))

    async def stop(self) -> None:
        """Drains: takes nothing more, finishes within the deadline, settles, flushes, closes."""
        self._running = False
        schedulers, self._schedulers = self._schedulers, []
        seconds = self.config.shutdown_timeout
        try:
            results = await asyncio.gather(
                *(scheduler.stop(seconds) for scheduler in schedulers), return_exceptions=True
            )
            for result in results:
                if isinstance(result, BaseException):
                    _log.error("stopping a subscription failed: %r", result)
        finally:
            await self._close()

    async def _close(self) -> None:
        await self.stop_web_ui()
        await self._resources.aclose()
        self._threads.close()

    async def __aenter__(self) -> Service:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    # State.

    @property
    def capabilities(self) -> Capabilities:
        """What the transport can do."""
        return self._transport.capabilities

    @property
    def busy_threads(self) -> int:
        """How many handlers run in threads."""
        return self._threads.busy

    def health(self) -> Health:
        """Whether the process should live, and whether it does its work."""
        problems = {
            scheduler.settings.name: "; ".join(scheduler.problems.values())
            for scheduler in self._schedulers
            if scheduler.problems
        }
        if (broken := self._transport.health()) is not None:
            problems["transport"] = broken
        if (unrelayed := self.outbox_problem) is not None:
            problems["outbox"] = unrelayed
        if not self._running:
            problems["service"] = "not started, or stopping"
        return Health(live=self._crash is None, ready=not problems, problems=problems)

    def pause(self, name: str) -> None:
        """Takes nothing more for a handler's subscription until `resume`.

        Args:
            name: the full name of a handler, or `<topic>/<group>`.
        """
        self._named(name).pause()

    def resume(self, name: str) -> None:
        """Ends `pause`."""
        self._named(name).resume()

    def _named(self, name: str) -> Scheduler:
        for scheduler in self._schedulers:
            handlers = (route.spec.name for route in scheduler.router.all)
            if name == scheduler.settings.name or name in handlers:
                return scheduler
        known = ", ".join(scheduler.settings.name for scheduler in self._schedulers)
        raise RegistrationError(f"{name}: no such subscription runs; there are {known or 'none'}")

    def _signalled(self, number: int) -> None:
        _log.info("%s: draining", signal.Signals(number).name)
        self.request_stop()

    def _crashed(self, error: BaseException) -> None:
        """A loop of the runtime died: the process drains and ends with the error."""
        if self._crash is None:
            self._crash = error
            _log.critical("a part of the runtime died: %r", error, exc_info=error)
        self.request_stop()


def _chain(middleware: Chain | Sequence[Middleware] | None, dependencies: Dependencies) -> Chain:
    from protoflow.middleware import default_chain

    if isinstance(middleware, Chain) and dependencies.keys() & {"hooks", "outbox"}:
        raise ConfigError("a whole chain is given: give hooks and outbox to default_chain, too")
    return chain_of(middleware, default_chain(dependencies))


@contextlib.contextmanager
def _signals(called: Callable[[int], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call; the handlers that were there come back."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, called, number)
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
