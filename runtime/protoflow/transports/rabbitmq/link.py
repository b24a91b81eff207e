"""One connection to the broker, made again whenever it is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Sequence

import aiormq.exceptions
from yarl import URL

from protoflow.errors import AuthenticationError, ConfigError, ConnectionFailedError
from protoflow.transport import TransportSettings
from protoflow.transports.rabbitmq.channel import (
    FAILURES,
    Channel,
    Connection,
    true_cancellation,
)
from protoflow.transports.rabbitmq.options import RabbitMQOptions

_logger = logging.getLogger("protoflow.rabbitmq")
_PORTS = {"amqp": 5672, "amqps": 5671}
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_ATTEMPT_SECONDS = 10.0


class Backoff:
    """Waits between attempts: doubled each time, jittered, bounded."""

    def __init__(self, settings: TransportSettings) -> None:
        self._clock = settings.clock
        self._next = _FIRST_WAIT

    def reset(self) -> None:
        """The next wait is the first again."""
        self._next = _FIRST_WAIT

    async def wait(self) -> None:
        """Waits."""
        seconds, self._next = self._next, min(self._next * 2, _LONGEST_WAIT)
        await self._clock.sleep(seconds * (0.5 + self._clock.random() / 2))


class Link:
    """A supervised connection.

    Attributes:
        problem: None while connected, else what is wrong.
    """

    def __init__(self, settings: TransportSettings, options: RabbitMQOptions, role: str) -> None:
        self.problem: str | None = "not connected yet"
        self._settings = settings
        self._options = options
        self._name = f"{settings.client_name} ({role})"
        self._connection: Connection | None = None
        self._connected = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connects. Raises ConnectionFailedError after `connect_timeout`, and
        AuthenticationError at once."""
        backoff = Backoff(self._settings)
        failure: Exception | None = None
        try:
            async with asyncio.timeout(self._settings.connect_timeout):
                while self._connection is None:
                    try:
                        await self._connect()
                    except ConnectionFailedError as error:
                        failure = error
                        await backoff.wait()
        except TimeoutError:
            raise ConnectionFailedError(
                f"no connection to rabbitmq at {self._settings.url.safe} within "
                f"{self._settings.connect_timeout:g} s: {failure or 'no answer'}"
            ) from failure
        self._supervisor = asyncio.create_task(self._supervise())

    async def connection(self) -> Connection:
        """The connection, waiting for it."""
        while self._connection is None or self._connection.is_closed:
            await self._connected.wait()
            if self._connection is not None and self._connection.is_closed:
                await asyncio.sleep(0)
        return self._connection

    async def channel(self, *, confirms: bool = True) -> Channel:
        """A new channel, waiting for the connection for a while."""
        try:
            async with asyncio.timeout(self._options.request_timeout):
                connection = await self.connection()
        except TimeoutError:
            raise TimeoutError(self.problem or "rabbitmq does not answer") from None
        return await connection.open_channel(self._options.request_timeout, confirms=confirms)

    async def close(self) -> None:
        """Disconnects. Idempotent."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
            self._supervisor = None
        connection, self._connection = self._connection, None
        self.problem = "closed"
        if connection is not None:
            with contextlib.suppress(*FAILURES, asyncio.CancelledError):
                await connection.close(timeout=_ATTEMPT_SECONDS)

    async def _supervise(self) -> None:
        while self._connection is not None:
            lost = await _closed(self._connection)
            self._connection = None
            self._connected.clear()
            self.problem = f"connection to rabbitmq lost: {describe(lost)}"
            _logger.warning("connection lost", extra={"connection": self._name})
            await self._reconnect()
            _logger.info("connected again", extra={"connection": self._name})

    async def _reconnect(self) -> None:
        backoff = Backoff(self._settings)
        while self._connection is None:
            await backoff.wait()
            try:
                async with asyncio.timeout(_ATTEMPT_SECONDS):
                    await self._connect()
            except (ConnectionFailedError, AuthenticationError, TimeoutError) as error:
                # Credentials are retried too: they may be put right at the broker.
                self.problem = str(error) or "rabbitmq does not answer"

    async def _connect(self) -> None:
        hosts = self._settings.url.hosts or (("localhost", None),)
        failure: BaseException | None = None
        for host, port in hosts:
            connection = Connection(
                self._url(host, port),
                context=self._tls(),
                client_properties={"connection_name": self._name},
            )
            try:
                with true_cancellation():
                    await connection.connect()
            except aiormq.exceptions.ProbableAuthenticationError as error:
                raise AuthenticationError(
                    f"rabbitmq at {self._settings.url.safe} refused the user or its password"
                ) from error
            except aiormq.exceptions.InvalidFrameError as error:
                raise AuthenticationError(
                    f"rabbitmq at {self._settings.url.safe} refused the virtual host: make it "
                    "with rabbitmqctl add_vhost, and grant rights with set_permissions"
                ) from error
            except FAILURES as error:
                failure = error
            else:
                self._connection, self.problem = connection, None
                self._connected.set()
                return
        raise ConnectionFailedError(
            f"rabbitmq at {self._settings.url.safe}: {describe(failure)}"
        ) from failure

    def _url(self, host: str, port: int | None) -> URL:
        url, options = self._settings.url, self._options
        password = url.password or options.password
        return URL.build(
            scheme=url.scheme,
            host=host,
            port=port or _PORTS[url.scheme],
            user=url.user or options.username or "guest",
            password=password.reveal() if password is not None else "guest",
            path="/" + url.path.removeprefix("/").replace("/", "%2F"),
            encoded=False,
        ).update_query(heartbeat=str(round(options.heartbeat)))

    def _tls(self) -> ssl.SSLContext | None:
        if self._settings.url.scheme != "amqps":
            return None
        options = self._options
        try:
            context = ssl.create_default_context(cafile=options.ca_file)
            if options.cert_file:
                context.load_cert_chain(options.cert_file, options.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"transport: rabbitmq: ca_file, cert_file or key_file: {error}"
            ) from error
        if not options.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


async def _closed(connection: Connection) -> BaseException | None:
    results = await asyncio.gather(connection.closing, return_exceptions=True)
    return results[0] if isinstance(results[0], BaseException) else None


def describe(error: BaseException | None) -> str:
    """What went wrong, in one line, from aiormq's exceptions."""
    texts: Sequence[object] = error.args if error is not None else ()
    return "; ".join(str(text) for text in texts if text not in ("", None)) or (
        type(error).__name__ if error is not None else "no reason given"
    )
