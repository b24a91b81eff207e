"""The supervised connection to the servers: it uses one client after another, and writes in order.

The reconnect of nats-py is turned off: it forgets unconfirmed data, and some errors close its
client permanently. Here every loss is handled in the same way: a new client is made, and each
member (a publisher, a subscription) sends its open requests again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from functools import partial
from typing import Protocol

from nats import errors

from protoflow.errors import ConnectionFailedError, TransportError
from protoflow.transport.interface import TransportSettings
from protoflow.transport.kit.backoff import Backoff
from protoflow.transports.nats.options import ConnectionOptions
from protoflow.transports.nats.wire.client import FastClient
from protoflow.transports.nats.wire.dial import Dialer, discard
from protoflow.transports.nats.wire.reader import Sink

_log = logging.getLogger("protoflow.transports.nats")
_TICK = 0.1
_DENIED = re.compile(r"permissions violation for (?:publish|subscription) to \"([^\"]+)\"")

#: The number of bytes that are written at once.
_CHUNK = 65_536
#: Seconds that closing waits for queued data.
_LAST_WORDS = 2.0


class Member(Protocol):
    """A user of a connection that outlives its clients."""

    async def connected(self, client: FastClient) -> None:
        """Handles a new client: subscribes, and sends open requests again."""

    def disconnected(self, detail: str) -> None:
        """Handles the loss of the client."""

    def denied(self, subject: str) -> None:
        """Handles a refusal to publish or subscribe to a subject, in lower case."""

    def tick(self, now: float) -> None:
        """Is called regularly."""


class NatsConnection:
    """A supervised connection that reconnects."""

    def __init__(self, settings: TransportSettings, options: ConnectionOptions) -> None:
        self.options = options
        self.clock = settings.clock
        self.settings = settings
        self._dialer = Dialer(settings, options, self._on_error)
        self._client: FastClient | None = None
        self._problem: str | None = "not connected"
        #: There will be no more clients.
        self.is_closed = False
        self._members: list[Member] = []
        self._queue: deque[bytes | asyncio.Future[None]] = deque()
        self._wake = asyncio.Event()
        self._lost = asyncio.Event()
        #: Flushes that wait for their turn, and flushes that wait for the server.
        self._flushing: list[asyncio.Future[None]] = []
        self._confirming: list[asyncio.Future[None]] = []
        self._writer: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def problem(self) -> str | None:
        """The current problem; None while connected."""
        return self._problem

    @property
    def client(self) -> FastClient:
        """The current client. Raises ConnectionFailedError."""
        if self._client is None:
            raise ConnectionFailedError(f"nats: {self._problem}")
        return self._client

    @property
    def is_connected(self) -> bool:
        """Whether there is a client."""
        return self._client is not None

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError, AuthenticationError or ConfigError."""
        await self._attach(await self._dialer.dial(self.settings.connect_timeout))
        self._tasks = [
            asyncio.create_task(self._supervise(), name="protoflow nats supervisor"),
            asyncio.create_task(self._tick(), name="protoflow nats ticks"),
        ]

    async def close(self) -> None:
        """Sends queued data if the server reads it soon, and disconnects. It is idempotent."""
        for task in self._tasks:
            task.cancel()
        try:
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._tasks = []
            if self._client is not None:
                with contextlib.suppress(TransportError, TimeoutError):
                    async with asyncio.timeout(_LAST_WORDS):
                        await asyncio.shield(self.flush())
        finally:
            self.is_closed = True
            await self._detach("closed")
            self._problem = "closed"

    async def join(self, member: Member) -> None:
        """Adds a member, which is connected immediately. Raises ConnectionFailedError."""
        await member.connected(self.client)
        self._members.append(member)

    def leave(self, member: Member) -> None:
        """Removes a member."""
        with contextlib.suppress(ValueError):
            self._members.remove(member)

    def write(self, commands: bytes) -> None:
        """Queues protocol commands in order. They are dropped if the client is lost; each member
        sends its own commands again."""
        self._queue.append(commands)
        self._wake.set()

    def flush(self) -> asyncio.Future[None]:
        """Waits until the server has received all earlier commands. Raises ConnectionFailedError if
        the client is lost first."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._client is None:
            future.set_exception(ConnectionFailedError(f"nats: {self._problem}"))
        else:
            self._queue.append(future)
            self._wake.set()
        return future

    async def unsubscribe(self, number: bytes) -> None:
        """Returns when all messages from the server have arrived, or the client is lost."""
        if self._client is not None:
            with contextlib.suppress(errors.Error, OSError):
                await self._client.unlisten(number)

    async def _write(self, client: FastClient) -> None:
        queue = self._queue
        while True:
            await self._wake.wait()
            self._wake.clear()
            while queue:
                if chunk := self._chunk():
                    await client.write(chunk)
                elif not isinstance(item := queue.popleft(), bytes):
                    self._flushing.append(item)
            if self._flushing and not self._confirming:
                waiting = self._confirming = self._flushing
                self._flushing = []
                pong = await client.ping()
                pong.add_done_callback(partial(self._confirmed, waiting))

    def _chunk(self) -> bytes:
        """Returns the next commands, up to a flush, which confirms only commands before it."""
        queue, size = self._queue, 0
        parts: list[bytes] = []
        while queue and size < _CHUNK and isinstance(part := queue[0], bytes):
            parts.append(part)
            size += len(part)
            queue.popleft()
        return b"".join(parts)

    def _confirmed(self, waiting: list[asyncio.Future[None]], _pong: asyncio.Future[bool]) -> None:
        for future in waiting:
            if not future.done():
                future.set_result(None)
        if waiting is self._confirming:  # otherwise it belongs to another client
            self._confirming = []
            self._wake.set()  # others may have requested a flush meanwhile

    def _writer_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("nats: writing failed", extra={"error": type(error).__name__})
            self._lost.set()

    async def _attach(self, client: FastClient) -> None:
        self._queue.clear()
        self._client, self._problem = client, None
        self._lost.clear()
        self._writer = asyncio.create_task(self._write(client), name="protoflow nats writer")
        self._writer.add_done_callback(self._writer_ended)
        for member in tuple(self._members):
            try:
                await member.connected(client)
            # an error of one member must not end the connection of others
            except Exception as error:
                _log.warning("nats: a subscription was not restored", extra={"error": str(error)})
                self._lost.set()  # the loop starts again

    async def _detach(self, detail: str) -> None:
        client, self._client = self._client, None
        if client is None:
            return  # the reason why there is no client stays
        self._problem = detail
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.cancel()
        futures = [item for item in self._queue if isinstance(item, asyncio.Future)]
        _fail(self._confirming + self._flushing + futures, detail)
        self._confirming, self._flushing = [], []
        self._queue.clear()
        for member in tuple(self._members):
            try:
                member.disconnected(detail)
            except Exception:  # nor the supervision of the connection
                _log.exception("nats: a member's disconnection failed")
        await discard(client)
        if writer is not None:
            await asyncio.gather(writer, return_exceptions=True)

    async def _supervise(self) -> None:
        """Keeps a client connected. It survives every error: no connection error is final, not even
        an unreadable file."""
        options = self.options
        backoff = Backoff(options.reconnect_wait, options.reconnect_max, self.clock.random)
        while True:
            try:
                if await self._is_well():
                    backoff.reset()
                    self._problem = None  # an error of a single check, too
                    continue
                await self._detach("connection lost")
                await self.clock.sleep(backoff.next())
                client = await self._dialer.dial()  # each server is listed once
                _log.info("nats: connected again")
                await self._attach(client)
            except Exception as error:
                self._problem = str(error) or type(error).__name__
                _log.warning("nats: not connected", extra={"error": self._problem})
                await asyncio.sleep(_TICK)

    async def _is_well(self) -> bool:
        """Returns, after a moment, whether the current client still works."""
        try:
            async with asyncio.timeout(_TICK):
                await self._lost.wait()
        except TimeoutError:
            # The state is polled, because some ends of a nats-py client call no callback.
            client = self._client
            if client is None or not client.is_connected:
                return False
            if client.announced:
                self._dialer.servers.learn(client.announced)
                client.announced = []
            if client.lame_duck and self._dialer.servers.several:
                _log.info("nats: the server is about to stop: going to another one")
                return False
            return True
        return False

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK)
            now = self.clock.monotonic()
            for member in tuple(self._members):
                try:
                    member.tick(now)
                except Exception:
                    _log.exception("nats: a member's tick failed")

    async def _on_error(self, error: Exception) -> None:
        if match := _DENIED.search(str(error).lower()):
            for member in tuple(self._members):
                member.denied(match[1])
        else:
            _log.debug("nats: a task failed", extra={"error": type(error).__name__}, exc_info=error)


def _fail(futures: list[asyncio.Future[None]], detail: str) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(ConnectionFailedError(f"nats: {detail}"))
            future.exception()  # the future may have no waiter


async def subscribe(client: FastClient, subject: str, sink: Sink, queue: str = "") -> bytes:
    """Subscribes, and returns the number of the subscription. Raises ConnectionFailedError."""
    try:
        return await client.listen(subject, sink, queue)
    except (errors.Error, OSError) as error:
        raise ConnectionFailedError(f"nats: {error}") from error
