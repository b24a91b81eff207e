"""Publishing without consuming: `connect` for the event loop, `connect_sync` without one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, TypeVar

from protoflow.clock import Clock
from protoflow.config import Config
from protoflow.encoder import Encoder
from protoflow.errors import CapabilityError
from protoflow.message import Message
from protoflow.output import AnyOutput
from protoflow.spec import PublicationSpec
from protoflow.transport import Topology, TopologyMode, Transport, TransportSettings
from protoflow.transports import create

T = TypeVar("T")


def transport_for(config: Config, clock: Clock) -> Transport:
    """The transport that the settings name, not yet open. Raises ConfigError."""
    return create(
        TransportSettings(
            url=config.url,
            options=config.transport_options,
            clock=clock,
            client_name=config.client_name,
            connect_timeout=config.connect_timeout,
            ladder=config.retry_ladder,
            exchange=config.exchange,
            require_subscriber=config.require_subscriber,
            on_lost_position=config.on_lost_position,
        )
    )


class Publishing:
    """What publishing needs of a transport: used by `Service` and `Connection`."""

    def __init__(self, config: Config, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._mode = config.topology
        self._ensured: set[str] = set()
        self.encode = Encoder(config, clock.now)

    async def outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs; their ids. Raises PublishError, CapabilityError."""
        messages = [self.encode(publication, output) for output in outputs]
        await self.messages(messages)
        return [message.id for message in messages]

    async def messages(self, messages: Sequence[Message]) -> None:
        """Publishes messages. Raises the first error; the others may be published."""
        if not messages:
            return
        for message in messages:
            check_delay(message, self._transport)
            if message.topic not in self._ensured:
                await self._ensure(message.topic)
        errors = await self._transport.submit(messages)
        for error in errors:
            if error is not None:
                raise error

    def known(self, topics: Sequence[str]) -> None:
        """These topics were made or verified already."""
        self._ensured.update(topics)

    async def _ensure(self, topic: str) -> None:
        """A topic is made or verified before the first message to it."""
        if self._mode is not TopologyMode.NONE:
            await self._transport.ensure(Topology(topics=(topic,)), self._mode)
        self._ensured.add(topic)


def check_delay(message: Message, transport: Transport) -> None:
    """Raises CapabilityError for a delay that the transport cannot keep."""
    if message.delay > 0 and not transport.capabilities.delayed_publish:
        raise CapabilityError(
            f"a message to {message.topic} is to be delayed by {message.delay:g} s, but the "
            "transport has no delayed publish; publish it when it is due"
        )


class Connection:
    """A connection that producers publish through; an asynchronous context manager."""

    def __init__(self, config: Config, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or Clock()
        self._transport = transport_for(config, self._clock)
        self._publishing = Publishing(config, self._transport, self._clock)

    @property
    def transport(self) -> Transport:
        """The transport beneath, for its optional interfaces."""
        return self._transport

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError, AuthenticationError."""
        await self._transport.open()

    async def close(self) -> None:
        """Flushes and disconnects. Idempotent."""
        await self._transport.close()

    async def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs; their ids. See `Publisher`."""
        return await self._publishing.outputs(publication, outputs)

    async def publish(self, *messages: Message) -> None:
        """Publishes raw messages. Raises PublishError."""
        await self._publishing.messages(messages)

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
        url: the transport URL; the config's if not given.
        settings: any fields of `Config`.
    """
    return Connection(_config(url, settings))


def connect_sync(url: str | None = None, **settings: Any) -> SyncConnection:
    """The same without an event loop: `with protoflow.connect_sync(url) as publisher`."""
    return SyncConnection(_config(url, settings))


def _config(url: str | None, settings: dict[str, Any]) -> Config:
    return Config(**settings) if url is None else Config(transport=url, **settings)


class SyncConnection:
    """A connection whose event loop runs in a thread of its own; a context manager."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None

    def publish_outputs(
        self, publication: PublicationSpec, outputs: Sequence[AnyOutput]
    ) -> list[str]:
        """Publishes outputs; their ids. See `SyncPublisher`."""
        return self._run(self._opened().publish_outputs(publication, outputs))

    def publish(self, *messages: Message) -> None:
        """Publishes raw messages. Raises PublishError."""
        self._run(self._opened().publish(*messages))

    def __enter__(self) -> SyncConnection:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="protoflow-connection", daemon=True
        )
        self._thread.start()
        try:
            self._connection = self._run(self._open())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._run(self._opened().close())
        finally:
            self._end()

    async def _open(self) -> Connection:
        connection = Connection(self._config)
        await connection.open()
        return connection

    def _opened(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("the connection is not open; use it as `with connect_sync(...)`")
        return self._connection

    def _run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            coroutine.close()
            raise RuntimeError("the connection is not open; use it as `with connect_sync(...)`")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = self._connection = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
