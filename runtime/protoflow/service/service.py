"""The service: ties registrations, transport, schedulers and lifetime together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import TYPE_CHECKING, Unpack

from protoflow.config.settings import Config
from protoflow.dataclass_record import dataclass_record
from protoflow.errors import ProtoflowError, RegistrationError
from protoflow.publishing.events import Emitting
from protoflow.registrations.registry import Registering
from protoflow.service.inspection import Observing

if TYPE_CHECKING:
    import asyncio
    import signal
    from types import TracebackType

    from protoflow.clock import Clock
    from protoflow.middleware import Dependencies
    from protoflow.pipeline import Chain, Middleware
    from protoflow.scheduling.scheduler import Scheduler
    from protoflow.service.shutdown import Shutdown
    from protoflow.transport.interface import Capabilities, Transport


@dataclass_record
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
        from protoflow.service.startup import (
            Parts,  # put off: who only names the class needs no parts
        )

        super().__init__()
        self.config = config or Config()
        self._parts = Parts(self.config, middleware, clock, transport, dependencies)
        self.books = self._parts.books
        self._clock = self._parts.clock
        self._chain = self._parts.chain
        self._transport = self._parts.transport
        self._publishing = self._parts.publishing
        self._lifespan = lifespan
        self._outbox = dependencies.get("outbox")
        self._schedulers: list[Scheduler] = []
        self._resources = AsyncExitStack()
        self._stop_requested: asyncio.Event | None = None
        self._crash: BaseException | None = None
        self._started = False
        self._opened = False
        self._running = False
        self._signals = 0

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
        """Runs until SIGTERM, SIGINT or `request_stop`, then drains. A second signal cancels the
        handlers, a third ends the process at once.

        Meanwhile the process is the service's: its signals (`handle_signals`), and how often
        Python looks for garbage (`gc_threshold`). `async with service` touches neither.

        Raises:
            ProtoflowError: the service cannot start.
            BaseException: whatever killed a part of the runtime; nothing dies in silence.
        """
        with self._parts.stopping(self._signalled) as self._stop_requested:
            async with self:
                if not self._registrations:
                    self._parts.report_no_handlers()
                with self._parts.garbage_collected_rarely():
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
            await self.stop()
            raise

    async def _start(self) -> None:
        self._chain.check()
        await self._transport.open()
        self._opened = True
        schedulers = await self._parts.assemble(
            self._registrations, self._messages, self._chain, self._crashed
        )
        await self._start_relay(self._resources)
        if self._lifespan is not None:
            await self._resources.enter_async_context(self._lifespan(self))
        # All join before any begins, so that no run meets the rebalance of a later one.
        for scheduler in schedulers:
            self._schedulers.append(scheduler)
            await scheduler.join()
        for scheduler in schedulers:
            scheduler.begin()
        self._running = True
        await self._start_configured_web()
        self._parts.report_start(schedulers)

    async def stop(self) -> None:
        """Drains: takes nothing more, finishes, settles, flushes, closes. All of it ends within
        `shutdown_timeout`; what is not settled then is delivered again."""
        self._running = False
        shutdown = self._parts.shutdown()
        try:
            await shutdown.drain(self._schedulers)
        finally:
            self._schedulers = []
            await self._close(shutdown)

    async def _close(self, shutdown: Shutdown) -> None:
        try:
            await shutdown.close("the web server", self.stop_web_ui)
            # Apart: a deadline cancels once, so what is closed after it would have none.
            await shutdown.close("the lifespan", self._resources.aclose)
        finally:
            if self._opened:
                await shutdown.close("the connection to the broker", self._transport.close)
            self._publishing.close()
            self._parts.threads.close()

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
        return self._parts.threads.busy

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
        if self._crash is not None:
            problems["service"] = f"a part of the runtime died: {type(self._crash).__name__}"
        elif not self._running:
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

    def _signalled(self, signal: signal.Signals) -> None:
        """The first signal drains, the second cancels what runs, the third ends the process."""
        self._signals += 1
        if self._signals == 1:
            self._parts.log.info("%s: draining; once more cancels the handlers", signal.name)
            self.request_stop()
        elif self._signals == 2:
            self._parts.log.warning("%s: handlers are cancelled; once more exits", signal.name)
            for scheduler in self._schedulers:
                scheduler.cancel_runs()
        else:
            self._parts.exit_now(signal)

    def _crashed(self, error: BaseException) -> None:
        """A loop of the runtime died: the process drains and ends with the error."""
        if self._crash is None:
            self._crash = error
            self._parts.log.critical("a part of the runtime died: %r", error, exc_info=error)
        self.request_stop()
