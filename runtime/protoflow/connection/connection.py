"""Publishing on the event loop: `connect`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from protoflow.clock import Clock
from protoflow.config.named_transports import DEFAULT
from protoflow.config.settings import Config
from protoflow.errors import ConfigError
from protoflow.publishing.event_publisher import EventPublisher
from protoflow.publishing.publisher import MessagePublisher
from protoflow.routing.routes import Routes
from protoflow.routing.transport import RoutedTransport
from protoflow.transport.interface import Transport, TransportSettings
from protoflow.transports import create

if TYPE_CHECKING:
    from protoflow.journal import Journal
    from protoflow.outbox.binding import Destination
    from protoflow.transport.kit.dead_letters import DeadLetters

_log = logging.getLogger("protoflow.service")


def transport_for(
    config: Config, clock: Clock, given: Mapping[str, Transport] | None = None
) -> Transport:
    """Returns the transport that the settings name, or all of them as one, not yet open.

    Args:
        config: the settings.
        clock: time.
        given: replace transports of the settings, by name.

    Raises:
        ConfigError: with the mistakes in the options of all transports.
    """
    parts: dict[str, Transport] = {}
    problems: list[str] = []
    for name in (DEFAULT, *config.transports):
        try:
            parts[name] = (given or {}).get(name) or create(transport_settings(config, clock, name))
        except ConfigError as error:
            where = "" if name == DEFAULT else f"transports.{name}: "
            problems += [f"{where}{text}" for text in error.problems]
    if problems:
        raise ConfigError(problems)
    if not config.transports:
        return parts[DEFAULT]
    return RoutedTransport(parts, Routes(config))


def transport_settings(config: Config, clock: Clock, name: str = DEFAULT) -> TransportSettings:
    """Returns the settings of a transport that the config names."""
    transport = config.transport_named(name)
    return TransportSettings(
        url=transport.url,
        options=transport.options,
        clock=clock,
        client_name=config.client_name,
        connect_timeout=config.connect_timeout,
        ladder=config.retry_ladder,
        require_subscriber=config.require_subscriber,
        on_lost_position=config.on_lost_position,
        topology=config.topology,
        sources=Routes(config).sources(name),
    )


def journal_for(config: Config, clock: Clock) -> Journal | None:
    """Returns the journal that the settings name, not yet open; None if they name none."""
    if not config.journal:
        return None
    from protoflow.journal import Journal

    return Journal(
        config.journal,
        successes=config.journal_successes,
        max_bytes=config.journal_max_bytes,
        actor=config.client_name,
        now=clock.now,
    )


def warn_of_memory(config: Config) -> None:
    """Warns if no transport is set, because the messages are then lost when the process ends."""
    if config.origin("transport") == "built in":
        _log.warning(
            "no transport is set: messages stay in the memory of this process and are lost when "
            "it ends; set PROTOFLOW_TRANSPORT or Config(transport=...), to memory:// if this is "
            "intended"
        )


class Connection(EventPublisher):
    """A connection that producers publish through; an asynchronous context manager."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        clock = clock or Clock()
        warn_of_memory(config)
        self._transport = transport_for(config, clock)
        #: Records published messages and operators' actions, if the settings name a journal.
        self.journal = journal_for(config, clock)
        sent = None
        if self.journal is not None and self.journal.successes:
            from protoflow.journal.sent_messages import JournaledMessages

            sent = JournaledMessages(self.journal)
        super().__init__(MessagePublisher(config, self._transport, clock, sent))
        self._destination: Destination | None = None

    def bind(self, connection: object) -> EventPublisher:
        """Returns a publisher for the transaction that is open on a database connection.

        Its messages exist if the transaction commits. They are written to the transport's own log
        if the transport uses the same database, otherwise to the outbox. With the outbox, the
        Protoflow connection need not be open.
        """
        from protoflow.outbox.binding import bind

        return bind(self._publisher, self.destination, connection)

    @property
    def destination(self) -> Destination:
        """Returns the destination of messages published in transactions; for the runtime."""
        if self._destination is None:
            from protoflow.outbox.binding import Destination

            self._destination = Destination(self._transport)
        return self._destination

    @property
    def message_publisher(self) -> MessagePublisher:
        """Returns the encoder of messages; for the runtime."""
        return self._publisher

    @property
    def transport(self) -> Transport:
        """Returns the transport, for its optional interfaces; several appear as one."""
        return self._transport

    @property
    def dead_letters(self) -> DeadLetters:
        """Returns the dead letters at the broker: list, show, replay or purge, in any topic."""
        from protoflow.dead_letters.access import dead_letters_of

        return dead_letters_of(self._transport, self.journal)

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError, AuthenticationError."""
        await self._transport.open()
        try:
            self._publisher.open()
            if self.journal is not None:
                self.journal.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Flushes and disconnects. Idempotent."""
        self._publisher.close()
        if self._destination is not None:
            self._destination.close()
        await self._transport.close()
        if self.journal is not None:
            try:
                await asyncio.to_thread(self.journal.close)
            except RuntimeError:  # the interpreter ends, and starts no thread any more
                self.journal.close()

    async def __aenter__(self) -> Connection:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def connect(url: str | None = None, **settings: Any) -> Connection:
    """A connection for producers: `async with protoflow.connect(url) as publisher`.

    Args:
        url: the transport URL; by default that of the config.
        settings: any fields of `Config`.
    """
    return Connection(configured(url, settings))


def configured(url: str | None, settings: dict[str, Any]) -> Config:
    """Returns the settings of a connection."""
    return Config(**settings) if url is None else Config(transport=url, **settings)
