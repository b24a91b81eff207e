"""What a service shows of itself: reports, dead letters, HTTP pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protoflow import semconv
from protoflow.errors import RegistrationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AsyncExitStack

    from protoflow.clock import Clock
    from protoflow.config.settings import Config
    from protoflow.observability.report import HandlerInfo, Observatory
    from protoflow.outbox import OutboxRelay, OutboxStore
    from protoflow.pipeline import HandlerSpec
    from protoflow.publishing.publisher import Publishing
    from protoflow.scheduling.scheduler import Scheduler
    from protoflow.stats.handlers import Books, HandlerStats
    from protoflow.transport.interface import Transport
    from protoflow.transport.kit.dead_letters import DeadLetters
    from protoflow.web.pages import Health
    from protoflow.web.server import WebServer


class Observing:
    """The observable part of a service."""

    config: Config
    #: The books of handlers and dead letters, open from the start on.
    books: Books
    _clock: Clock
    _transport: Transport
    _publishing: Publishing
    _schedulers: list[Scheduler]

    def __init__(self) -> None:
        super().__init__()
        self._http_handlers: dict[tuple[str, str], Any] = {}
        self._web: WebServer | None = None
        self._observatory: Observatory | None = None
        self._outbox: OutboxStore | None = None
        self._relay: OutboxRelay | None = None

    def health(self) -> Health:
        """See `Service.health`."""
        raise NotImplementedError

    @property
    def transport(self) -> Transport:
        """The transport, for its optional interfaces (dead letters, lag, transactions)."""
        return self._transport

    @property
    def subscriptions(self) -> Sequence[Scheduler]:
        """The running subscriptions."""
        return tuple(self._schedulers)

    @property
    def observatory(self) -> Observatory:
        """Reads the books and asks the broker; what Prometheus collectors are made of."""
        if self._observatory is None:
            from protoflow.observability.report import Observatory

            system = semconv.system(self.config.url.scheme)
            self._observatory = Observatory(self, self._clock, system)
        return self._observatory

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters of the handlers: list, show, replay, purge, each in the books."""
        from protoflow.dead_letters.access import dead_letters_of_service

        return dead_letters_of_service(self._transport, self.books.dead_letters, self._clock)

    def stats(self) -> dict[str, HandlerStats]:
        """The books of every handler, by its full name."""
        return dict(self.books.handlers)

    def handlers(self) -> list[HandlerInfo]:
        """Every handler and its state; lag as of the last `observatory.refresh()`."""
        return self.observatory.handlers()

    def publish_topic(self, spec: HandlerSpec) -> str:
        """Where a handler publishes to; empty is nowhere."""
        return self._publishing.encode.topic_of(spec.publication) if spec.publication else ""

    def register_http_handler(
        self, path: str, handler: Callable[[Any], Awaitable[Any]], *, method: str = "GET"
    ) -> None:
        """Serves a page of one's own beside the built-in ones, under the same token.

        Args:
            path: as aiohttp routes it, `/orders/{id}`.
            handler: takes an `aiohttp.web.Request`, returns a response.
            method: the HTTP method.

        Raises:
            RegistrationError: the path is taken, or the server runs already.
        """
        if self._web is not None or (method, path) in self._http_handlers:
            raise RegistrationError(f"{method} {path}: taken, or too late: register before start")
        self._http_handlers[method, path] = handler

    async def start_web_ui(self, port: int | None = None) -> int:
        """Serves the HTTP pages; the service does so itself where `http_port` is set.

        Args:
            port: instead of the configured one; 0 leaves it to the system.

        Returns:
            The port.

        Raises:
            ConfigError: the port is taken.
            MissingExtraError: aiohttp is not installed.
        """
        return await self._server().start_pages(self.config.http_port if port is None else port)

    async def stop_web_ui(self) -> None:
        """Closes the ports; `stop` does so itself."""
        if self._web is not None:
            await self._web.stop()
            self._web = None

    def relay_outbox(self, store: OutboxStore) -> None:
        """Empties an outbox while the service runs, if it is a `RelayedOutbox`;
        `Service(outbox=...)` does so itself.

        Raises:
            RegistrationError: the service has one already.
        """
        if self._outbox is not None:
            raise RegistrationError("the service relays an outbox already")
        self._outbox = store

    @property
    def outbox_problem(self) -> str | None:
        """Why the outbox is not emptied; None is that it is, or that there is none."""
        return self._relay.problem if self._relay is not None else None

    async def _start_relay(self, resources: AsyncExitStack) -> None:
        if self._outbox is None:
            return
        from protoflow.outbox import OutboxRelay, RelayedOutbox

        if isinstance(self._outbox, RelayedOutbox):
            relay = OutboxRelay(self._outbox, self._transport)
            self._relay = await resources.enter_async_context(relay)
            self.observatory.relay = relay

    async def _start_configured_web(self) -> None:
        config = self.config
        if config.http_port:
            await self.start_web_ui()
        if config.metrics_port and config.metrics_port != config.http_port:
            await self._server().start_metrics(config.metrics_port)

    def _server(self) -> WebServer:
        if self._web is None:
            from protoflow.web.server import WebServer

            self._web = WebServer(
                self.config,
                self.observatory,
                self.dead_letters,
                self.health,
                self._http_handlers,
            )
        return self._web
