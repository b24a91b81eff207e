"""One connection to the broker, which reconnects after every loss."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from typing import Any

import aiormq.exceptions
from yarl import URL

from protoflow.clock import Clock
from protoflow.errors import AuthenticationError, ConnectionFailedError
from protoflow.transport.interface import TransportSettings
from protoflow.transport.kit.backoff import Backoff
from protoflow.transport.kit.supervisor import Supervisor
from protoflow.transports.rabbitmq.channel import FAILURES, Channel, Connection
from protoflow.transports.rabbitmq.options import RabbitMQOptions

_logger = logging.getLogger("protoflow.rabbitmq")
_PORTS = {"amqp": 5672, "amqps": 5671}
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
#: The time that one host may take at first, and at most; it doubles after each failed round.
_HOST_SECONDS, _LONGEST_HOST_SECONDS = 3.0, 12.0
_ROUND_SECONDS = 60.0
_NOTICE_SECONDS = 0.01
_CLOSE_SECONDS = 3.0


def new_backoff(clock: Clock) -> Backoff:
    """Returns the waits between attempts to connect, or to restart on a connection."""
    return Backoff(_FIRST_WAIT, _LONGEST_WAIT, clock.random)


class Link:
    """A supervised connection.

    Attributes:
        problem: None while connected, otherwise the problem.
        blocked: why the server accepts no messages, such as an alarm; None if it accepts them.
        on_blocked: called when this changes.
    """

    def __init__(self, settings: TransportSettings, options: RabbitMQOptions, role: str) -> None:
        self.problem: str | None = "the transport is not open"
        self.blocked: str | None = None
        self.on_blocked: Callable[[], None] = _nothing
        self._settings = settings
        self._options = options
        self._name = f"{settings.client_name} ({role})"
        self._hosts = _shuffled(settings)
        self._tried = 0
        self._patience = _HOST_SECONDS
        self._connection: Connection | None = None
        self._changed = asyncio.Event()
        self._running = False
        self._supervisor = Supervisor(
            lambda: self._connect(_ROUND_SECONDS),
            self._watch,
            up=lambda _: _logger.info("connected again", extra={"connection": self._name}),
            down=self._fail,
            clock=settings.clock,
            backoff=new_backoff(settings.clock),
        )
        self._given_up: set[asyncio.Future[bool]] = set()

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError after `connect_timeout`, and
        AuthenticationError."""
        clock = self._settings.clock
        backoff = new_backoff(clock)
        failure: Exception | None = None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settings.connect_timeout
        self._running = True
        try:
            async with asyncio.timeout_at(deadline):
                while self._connection is None:
                    try:
                        await self._connect(deadline - loop.time())
                    except ConnectionFailedError as error:
                        failure = error
                        await clock.sleep(backoff.next())
        except TimeoutError:
            await self.close()
            raise ConnectionFailedError(
                f"no connection to rabbitmq at {self._settings.url.safe} within "
                f"{self._settings.connect_timeout:g} s: {failure or 'no answer'}"
            ) from failure
        self._supervisor.start(None)

    async def connection(self) -> Connection:
        """Waits for the connection. Raises ConnectionError if there will be none."""
        while self._running:
            connection = self._connection
            if connection is None:
                await self._changed.wait()
            elif connection.is_closed:
                await asyncio.sleep(_NOTICE_SECONDS)  # the supervisor will see the loss
            else:
                return connection
        raise ConnectionError(self.problem or "the transport is closed")

    async def channel(self, *, confirms: bool = True) -> Channel:
        """Opens a new channel, and waits for the connection for a while."""
        try:
            async with asyncio.timeout(self._options.request_timeout):
                connection = await self.connection()
        except TimeoutError:
            raise TimeoutError(self.problem or "rabbitmq does not answer") from None
        return await connection.open_channel(self._options.request_timeout, confirms=confirms)

    async def close(self) -> None:
        """Disconnects, even if the server does not answer. It is idempotent."""
        self._running = False
        self._changed.set()
        connection, self._connection = self._connection, None
        self.problem = "the transport is closed"
        try:
            await self._supervisor.stop()
        finally:
            if connection is not None:
                await self._end(connection)
            if self._given_up:
                await asyncio.wait(self._given_up, timeout=_CLOSE_SECONDS)

    async def _end(self, connection: Connection) -> None:
        closing = asyncio.ensure_future(connection.close(timeout=_CLOSE_SECONDS))
        try:
            await asyncio.wait([closing], timeout=_CLOSE_SECONDS)
        finally:
            if not closing.done():
                connection.abort()  # requests that wait for an answer end with the connection
            closing.add_done_callback(_seen)

    async def _watch(self, _: None) -> str:
        """Waits for the loss of the connection, and returns the reason."""
        connection = self._connection
        lost = await _closed(connection) if connection is not None else None
        self._connection = None
        self._changed.clear()
        _logger.warning("connection lost", extra={"connection": self._name})
        self._block(None)
        return f"connection to rabbitmq lost: {describe(lost)}"

    def _fail(self, problem: str) -> None:
        self.problem = problem

    async def _connect(self, within: float) -> None:
        """Tries each host once, beginning after the one that was tried last, so that a host that
        accepts connections but never answers does not block the others."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        failure: BaseException | None = None
        for left in range(len(self._hosts), 0, -1):
            host, port = self._hosts[self._tried % len(self._hosts)]
            self._tried += 1
            patience = min(self._patience, (deadline - loop.time()) / left)
            try:
                connection = await self._dial(host, port, patience)
            except aiormq.exceptions.ProbableAuthenticationError as error:
                raise AuthenticationError(
                    f"rabbitmq at {self._settings.url.safe} refused the user or its password"
                ) from error
            except aiormq.exceptions.InvalidFrameError as error:
                raise AuthenticationError(
                    f"rabbitmq at {self._settings.url.safe} refused the virtual host: create it "
                    "with rabbitmqctl add_vhost, and grant rights with set_permissions"
                ) from error
            except FAILURES as error:
                failure = error
            else:
                self._connection, self.problem = connection, None
                self._patience = _HOST_SECONDS
                self._changed.set()
                return
        self._patience = min(2 * self._patience, _LONGEST_HOST_SECONDS)
        raise ConnectionFailedError(
            f"rabbitmq at {self._settings.url.safe}: {describe(failure)}"
        ) from failure

    async def _dial(self, host: str, port: int | None, patience: float) -> Connection:
        connection = Connection(
            self._url(host, port),
            context=self._tls(),
            client_properties={"connection_name": self._name},
            blocked=self._block,
        )
        connecting = asyncio.ensure_future(connection.connect())
        try:
            done, _ = await asyncio.wait([connecting], timeout=patience)
        finally:
            if not connecting.done():
                connecting.cancel()
                connection.abort()
                self._given_up.add(connecting)
                connecting.add_done_callback(self._given_up.discard)
                connecting.add_done_callback(_seen)
        if not done:
            raise TimeoutError(f"{host} did not answer within {patience:.1f} s")
        if connecting.cancelled():  # aiormq's exception for a lost connection
            raise ConnectionError("the connection was lost")
        error = connecting.exception()
        if error is not None:
            raise ConnectionError("the connection was lost") if type(error) is Exception else error
        return connection

    def _block(self, reason: str | None) -> None:
        if reason != self.blocked:
            self.blocked = reason
            if reason is not None:
                _logger.warning("rabbitmq blocked publishers", extra={"reason": reason})
            self.on_blocked()

    def _url(self, host: str, port: int | None) -> URL:
        url, options = self._settings.url, self._options
        user, password = options.login(url)
        return URL.build(
            scheme=url.scheme,
            host=host,
            port=port or _PORTS[url.scheme],
            user=user or "guest",
            password=password.reveal() if password is not None else "guest",
            path="/" + url.path.removeprefix("/").replace("/", "%2F"),
            encoded=False,
        ).update_query(heartbeat=str(round(options.heartbeat)))

    def _tls(self) -> ssl.SSLContext | None:
        encrypted = self._settings.url.scheme == "amqps"
        return self._options.tls_context("rabbitmq", "amqps", encrypted=encrypted)


async def _closed(connection: Connection) -> BaseException | None:
    results = await asyncio.gather(connection.closing, return_exceptions=True)
    return results[0] if isinstance(results[0], BaseException) else None


def describe(error: BaseException | None) -> str:
    """Returns a one-line description of aiormq's exceptions."""
    texts: Sequence[object] = error.args if error is not None else ()
    return "; ".join(str(text) for text in texts if text not in ("", None)) or (
        type(error).__name__ if error is not None else "no reason given"
    )


def _shuffled(settings: TransportSettings) -> list[tuple[str, int | None]]:
    """Returns the hosts in a random order, so that processes spread over them."""
    hosts = [*(settings.url.hosts or (("localhost", None),))]
    for index in range(len(hosts) - 1, 0, -1):
        other = int(settings.clock.random() * (index + 1))
        hosts[index], hosts[other] = hosts[other], hosts[index]
    return hosts


def _seen(future: asyncio.Future[Any]) -> None:
    if not future.cancelled():
        future.exception()


def _nothing() -> None:
    pass
