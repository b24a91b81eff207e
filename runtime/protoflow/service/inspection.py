"""The observable state of a service: health, reports, dead letters, HTTP pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from protoflow.clock import Clock
from protoflow.config.named_transports import DEFAULT
from protoflow.config.settings import Config
from protoflow.error_codes import DATABASE, TOO_LATE
from protoflow.errors import ConfigError, RegistrationError
from protoflow.pipeline import HandlerSpec
from protoflow.publishing.publisher import MessagePublisher
from protoflow.registrations.registry import Registry
from protoflow.routing.transport import part_of, parts_of
from protoflow.scheduling.scheduler import Scheduler
from protoflow.service.running import Running
from protoflow.stats.handlers import Counters
from protoflow.transport.interface import ReportsWarnings, SubscriptionSettings, Transport

if TYPE_CHECKING:
    from contextlib import AsyncExitStack

    from protoflow.inbox import Inbox
    from protoflow.journal import Journal
    from protoflow.observability.health import Health
    from protoflow.observability.report import Reporter
    from protoflow.outbox import OutboxRelay, OutboxStore
    from protoflow.transport.kit.dead_letters import DeadLetters
    from protoflow.web.asgi import ASGIApplication
    from protoflow.web.host import Host
    from protoflow.web.server import WebServer


class Inspection:
    """The observable part of a service. Loads pages and reports at their first use.

    Args:
        config: the settings.
        clock: time.
        transport: the broker.
        counters: statistics.
        publisher: knows the topics to which handlers publish.
        running: the state of the service.
        registry: the handlers.
        outbox: emptied while the service runs, if it is a `RelayedOutbox`.
        journal: records replays and purges.
        inbox: opens the transactions of handlers, if there is one.
    """

    def __init__(
        self, config: Config, clock: Clock, transport: Transport, counters: Counters,
        publisher: MessagePublisher, running: Running, registry: Registry,
        outbox: OutboxStore | None, journal: Journal | None = None,
        inbox: Inbox[Any] | None = None,
    ) -> None:  # fmt: skip
        self.transport = transport
        self.counters = counters
        self._config = config
        self._clock = clock
        self._publisher = publisher
        self._running = running
        self._registry = registry
        self._outbox = outbox
        self._journal = journal
        self._inbox = inbox
        self._http_handlers: dict[tuple[str, str], Any] = {}
        self._mounted = False
        self._web: WebServer | None = None
        self._host: Host | None = None
        self._reporter: Reporter | None = None
        self._relay: OutboxRelay | None = None

    @property
    def subscriptions(self) -> Sequence[Scheduler]:
        """The running subscriptions."""
        return tuple(self._running.subscriptions)

    @property
    def counted(self) -> Sequence[Scheduler]:
        """The subscriptions with counters: the running ones, afterwards those that ended."""
        return self.subscriptions or tuple(self._running.ended)

    @property
    def watched(self) -> Sequence[SubscriptionSettings]:
        """The subscriptions whose lag is measured."""
        return [scheduler.settings for scheduler in self._running.subscriptions]

    @property
    def reporter(self) -> Reporter:
        """The reporter, which reads the counters and queries the broker."""
        if self._reporter is None:
            from protoflow.observability.report import Reporter

            self._reporter = Reporter(self, self._clock, self._config)
        return self._reporter

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of the service's handlers."""
        from protoflow.dead_letters.access import dead_letters_of_service

        return dead_letters_of_service(
            self.transport, self.counters.dead_letters, self._clock, self._journal
        )

    @property
    def outbox_problem(self) -> str | None:
        """Why the outbox is not emptied; None if it is emptied or there is none."""
        return self._relay.problem if self._relay is not None else None

    def health(self) -> Health:
        """Returns whether the process is alive and ready, and its problems."""
        from protoflow.observability.health import Health

        problems = self._running.problems()
        for name, part in parts_of(self.transport).items():
            if (broken := part.health()) is not None:
                problems[f"transport {name}".rstrip()] = broken
        if (unrelayed := self.outbox_problem) is not None:
            problems["outbox"] = unrelayed
        if self._inbox is not None and self._inbox.problem is not None:
            problems["inbox"] = self._inbox.problem
        ready = not problems
        if isinstance(self.transport, ReportsWarnings):
            problems |= self.transport.warnings()
        return Health(live=self._running.crash is None, ready=ready, problems=problems)

    def publish_topic(self, spec: HandlerSpec) -> str:
        """Returns the topic to which a handler publishes; empty if it does not publish."""
        return self._publisher.encode.topic_of(spec.publication) if spec.publication else ""

    def register_http_handler(
        self, path: str, handler: Callable[[Any], Awaitable[Any]], *, method: str = "GET"
    ) -> None:
        """Adds a page of the user's application. Raises RegistrationError."""
        if self._mounted:
            raise RegistrationError(
                f"{method} {path}: the pages are mounted in an application; add the page to it",
                code=TOO_LATE,
            )
        if self._web is not None or (method, path) in self._http_handlers:
            raise RegistrationError(
                f"{method} {path}: the path is taken, or the server runs already; "
                "register before start",
                code=TOO_LATE,
            )
        self._http_handlers[method, path] = handler

    async def start_web_ui(self, port: int | None = None) -> int:
        """Serves the HTTP pages; returns the port. Raises ConfigError, MissingExtraError."""
        from protoflow.web.pages import pages_of

        config = self._config
        wanted = config.http_port if port is None else port
        without = ("/metrics",) if config.metrics_port not in (0, wanted) else ()
        return await self._server().serve(pages_of(self.host, without=without), wanted)

    def end_streams(self) -> None:
        """Ends the event streams of viewers, so that the server can close."""
        if self._host is not None:
            self._host.live.end()

    async def stop_web_ui(self) -> None:
        """Closes the ports."""
        if self._web is not None:
            await self._web.stop()
            self._web = None

    def asgi_app(self) -> ASGIApplication:
        """Returns the HTTP pages as an ASGI application. Raises RegistrationError."""
        from protoflow.web.asgi import asgi
        from protoflow.web.pages import pages_of

        if self._http_handlers:
            method, path = next(iter(self._http_handlers))
            raise RegistrationError(
                f"{method} {path}: register_http_handler takes handlers of aiohttp, which an ASGI "
                "application cannot call; add the page to the application around it",
                code=TOO_LATE,
            )
        self._mounted = True
        return asgi(pages_of(self.host))

    def relay_outbox(self, store: OutboxStore) -> None:
        """Empties an outbox while the service runs. Raises RegistrationError."""
        if self._outbox is not None:
            raise RegistrationError("the service already relays an outbox", code=TOO_LATE)
        self._outbox = store

    @property
    def relays(self) -> bool:
        """Whether this service empties an outbox."""
        return self._relay is not None

    def wake_relay(self) -> None:
        """Wakes the relay after a write to the outbox of this process."""
        if self._relay is not None:
            self._relay.wake()

    async def start_relay(self, resources: AsyncExitStack) -> None:
        """Starts to empty the outbox until the resources are closed. Raises ConfigError."""
        url, store = self._config.outbox_url, self._outbox
        if url is not None:
            if store is not None:
                raise ConfigError(
                    "outbox: the settings name a database, and the service was given a store; "
                    "leave out one of the two",
                    code=DATABASE,
                )
            from protoflow.outbox.configured import outbox_at

            configured = outbox_at(url, self._config.topology)
            resources.push_async_callback(configured.close)
            store = configured
        if store is None:
            return
        from protoflow.outbox import OutboxRelay, RelayedOutbox

        if isinstance(store, RelayedOutbox):
            relay = OutboxRelay(
                store, self.transport, sent=self.counters.sent, publisher=self._publisher,
                mandatory=self._config.require_subscriber,
            )  # fmt: skip
            self._relay = await resources.enter_async_context(relay)
            self.reporter.relay = relay

    async def meet_neighbours(self, resources: AsyncExitStack) -> None:
        """Exchanges heartbeats with other processes, if the settings ask for it."""
        if not self._config.http_processes:
            return
        from protoflow.web.api.live import beat_of
        from protoflow.web.neighbours import Neighbours

        host = self.host
        default = part_of(self.transport, DEFAULT)
        neighbours = Neighbours(default, self._config, lambda: beat_of(host))
        host.neighbours = await resources.enter_async_context(neighbours)

    async def start_configured_web(self) -> None:
        """Serves the pages that `http_port`, `http_socket` and `metrics_port` configure."""
        config = self._config
        if config.http_port:
            await self.start_web_ui()
        metrics = config.metrics_port if config.metrics_port != config.http_port else 0
        if not (config.http_socket or metrics):
            return
        from protoflow.web.pages import pages_of

        if config.http_socket:
            await self._server().serve_socket(pages_of(self.host), config.http_socket)
        if metrics:
            self.host.exposition()  # a missing extra stops the start
            await self._server().serve(pages_of(self.host, only=("/metrics",)), metrics)

    @property
    def host(self) -> Host:
        """Returns the view of the service that HTTP routes use."""
        if self._host is None:
            from protoflow.web.host import Host

            self._host = Host(
                config=self._config, reporter=self.reporter, dead_letters=self.dead_letters,
                health=self.health, named=self._running.named,
                registrations=lambda: self._registry.registrations,
                started=lambda: self._running.active, publish=self._publisher.outputs,
                journal=self._journal,
            )  # fmt: skip
        return self._host

    def _server(self) -> WebServer:
        if self._web is None:
            from protoflow.web.server import WebServer

            self._web = WebServer(self._config, self._http_handlers)
        return self._web
