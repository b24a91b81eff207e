"""The connection to the server: one client, its scripts, and the conversion of its errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from redis import exceptions
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from protoflow.error_codes import (
    NOT_OPEN,
    SERVER_TOO_OLD,
    TOPOLOGY_MISSING,
    TRANSPORT_OPTION,
    TRANSPORT_URL,
)
from protoflow.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    TopologyError,
    TransportError,
)
from protoflow.transport.interface import TransportSettings
from protoflow.transports.redis.options import RedisOptions
from protoflow.transports.redis.scripts import Script

_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_OLDEST: Final = (6, 2)
#: Commands whose answers are not decoded.
_RAW: Final = (
    "XRANGE", "XREVRANGE", "XREAD", "XREADGROUP", "XCLAIM", "HGET", "HMGET", "XPENDING", "ZSCORE",
)  # fmt: skip
_REFUSED: Final = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.NoPermissionError,
)
#: The server's error for commands and keys that a script may not use.
_OF_SCRIPTS: Final = "The user executing the script can't"
#: The error of a call that first had to continue building the order of a group.
_REBUILDING: Final = "REBUILDING"
#: More than redis-py's 100, because each stream of each subscription blocks one connection.
_CONNECTIONS: Final = 1 << 20
#: Seconds for which the server blocks one read.
BLOCK: Final = 5.0


class RedisConnection:
    """A client that all parts of a transport share.

    Attributes:
        problem: the problem of the last call; None if the server answered.
    """

    def __init__(self, settings: TransportSettings, options: RedisOptions) -> None:
        self.settings = settings
        self.options = options
        self.problem: str | None = "the transport is not open"
        self._timeout = options.request_timeout
        self._tls = options.tls_context(
            "redis", "rediss", encrypted=settings.url.scheme == "rediss"
        )
        self._client: Any = None  # Any: a Redis or a RedisCluster
        self._sentinels: list[Redis] = []
        self._database = _database(settings, options)
        if self._tls is not None and (options.cluster or options.sentinel is not None):
            self._refuse_in_cluster()

    async def open(self) -> None:
        """Connects, and checks whether this server may store messages."""
        self._client = self._cluster() if self.options.cluster else self._single()
        for name in _RAW:
            self._client.response_callbacks.pop(name, None)
        try:
            async with asyncio.timeout(self.settings.connect_timeout):
                await self._check()
        except TimeoutError as error:
            await self.close()
            raise ConnectionFailedError(
                f"{self.settings.url.safe} did not answer within"
                f" {self.settings.connect_timeout:g} s"
            ) from error
        except TransportError:
            await self.close()
            raise

    async def close(self) -> None:
        """Disconnects. Idempotent."""
        client, self._client = self._client, None
        sentinels, self._sentinels = self._sentinels, []
        self.problem = "the transport is closed"
        for each in (*sentinels, *(() if client is None else (client,))):
            # the connection is lost anyway
            with contextlib.suppress(exceptions.RedisError, OSError):
                await each.aclose()

    async def call(self, script: Script, key: str, *arguments: Any) -> Any:
        """Runs a script on the keys of one stream."""
        while True:
            async with self._answered(self._timeout) as client:
                try:
                    return await self._evaluate(client, script, key, *arguments)
                except exceptions.ResponseError as error:
                    if not str(error).startswith(_REBUILDING):
                        raise

    async def _evaluate(self, client: Any, script: Script, *arguments: Any) -> Any:
        try:
            return await client.execute_command("EVALSHA", script.sha, 1, *arguments)
        except exceptions.NoScriptError:
            return await client.execute_command("EVAL", script.text, 1, *arguments)

    async def command(self, *arguments: Any) -> Any:
        """Runs one command."""
        async with self._answered(self._timeout) as client:
            return await client.execute_command(*arguments)

    async def news(self, stream: str, last: bytes) -> bool:
        """Waits a while for an entry after `last`; returns whether there is one."""
        block = round(BLOCK * 1000)
        async with self._answered(BLOCK + self._timeout) as client:
            return bool(
                await client.execute_command(
                    "XREAD", "COUNT", 1, "BLOCK", block, "STREAMS", stream, last
                )
            )

    @contextlib.asynccontextmanager
    async def _answered(self, timeout: float) -> AsyncIterator[Any]:
        if self._client is None:
            raise ConnectionFailedError("the transport is not open", code=NOT_OPEN)
        try:
            async with asyncio.timeout(timeout):
                yield self._client
        except TimeoutError as error:
            self.problem = f"{self.settings.url.safe} did not answer within {timeout:g} s"
            raise ConnectionFailedError(self.problem) from error
        except (exceptions.RedisError, OSError) as error:
            failure = self._translated(error)
            if not isinstance(error, exceptions.ResponseError):
                self.problem = str(failure)
            raise failure from error
        self.problem = None

    def _translated(self, error: Exception) -> TransportError:
        text, where = str(error), self.settings.url.safe
        refused = isinstance(error, _REFUSED) or "NOPERM" in text or _OF_SCRIPTS in text
        if refused:
            return AuthenticationError(f"{where}: {text}")
        if "NOGROUP" in text:
            return TopologyError(
                f"{where}: a stream or its group is gone; was the server's data lost? ({text})",
                code=TOPOLOGY_MISSING,
            )
        if isinstance(error, exceptions.ResponseError):
            return TransportError(f"{where}: {text}")
        return ConnectionFailedError(f"{where}: {text or type(error).__name__}")

    async def _check(self) -> None:
        async with self._answered(self.settings.connect_timeout) as client:
            await client.initialize()
            one = {"target_nodes": client.get_default_node()} if self.options.cluster else {}
            info = await client.info(**one)
        where = self.settings.url.safe
        version = str(info.get("redis_version", "0.0"))
        if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
            raise ConnectionFailedError(
                f"{where} is Redis {version}, 6.2 or newer is needed", code=SERVER_TOO_OLD
            )
        policy = str(info.get("maxmemory_policy", "noeviction"))
        if policy.startswith("allkeys"):
            raise ConnectionFailedError(
                f"{where} has maxmemory-policy {policy}, so it would drop topics when memory is"
                " short; set maxmemory-policy to noeviction"
            )

    def _common(self) -> dict[str, Any]:
        user, password = self.options.login(self.settings.url)
        return {
            "username": user,
            "password": password.reveal() if password else None,
            "client_name": self.settings.client_name,
            "protocol": 2,
            "socket_timeout": None,
            "socket_connect_timeout": self.settings.connect_timeout,
            "max_connections": _CONNECTIONS,
            "retry": Retry(NoBackoff(), 0),  # only the caller knows which calls may be repeated
        }

    def _single(self) -> Redis:
        pool: ConnectionPool
        if self.options.sentinel is not None:
            return self._sentinel(self.options.sentinel)
        host, port = (self.settings.url.hosts or (("localhost", None),))[0]
        common = {**self._common(), "host": host, "port": port or _PORT, "db": self._database}
        pool = ConnectionPool(**common, **self._connection_class())
        return Redis.from_pool(pool)  # closing the client closes the pool

    def _connection_class(self) -> dict[str, Any]:
        tls = self._tls
        if tls is None:
            return {"connection_class": Connection}

        class TlsConnection(SSLConnection):
            def __init__(self, **fields: Any) -> None:
                super().__init__(**fields)
                self.ssl_context.context = tls

        return {"connection_class": TlsConnection}

    def _sentinel(self, name: str) -> Redis:
        options, secret = self.options, self.options.sentinel_password
        tls = {"ssl": True, **self._tls_files()} if self._tls is not None else {}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # its constructor has no types
            [(host, port or _SENTINEL_PORT) for host, port in self.settings.url.hosts],
            sentinel_kwargs={
                "username": options.sentinel_username,
                "password": secret.reveal() if secret else None,
                "socket_timeout": self._timeout,
                **tls,
            },
            **self._common(),
            db=self._database,
            **tls,
        )
        self._sentinels = [*sentinel.sentinels]  # the client does not close them
        client: Redis = sentinel.master_for(name)
        return client

    def _cluster(self) -> RedisCluster:
        hosts = self.settings.url.hosts or (("localhost", None),)
        return RedisCluster(
            startup_nodes=[ClusterNode(host, port or _PORT) for host, port in hosts],
            **self._common(),
            **({"ssl": True, **self._tls_files()} if self._tls is not None else {}),
        )

    def _tls_files(self) -> dict[str, Any]:
        options = self.options
        return {
            "ssl_ca_certs": options.tls_ca_file,
            "ssl_certfile": options.tls_cert_file,
            "ssl_keyfile": options.tls_key_file,
            "ssl_cert_reqs": "required" if options.tls_verify else "none",
            "ssl_check_hostname": options.tls_verify and options.tls_verify_hostname,
        }

    def _refuse_in_cluster(self) -> None:
        if self.options.tls_key_password or self.options.tls_server_name:
            raise ConfigError(
                "transport: redis: options tls_key_password and tls_server_name cannot be used"
                " with a cluster or sentinels; use a key without a password and the nodes' names",
                code=TRANSPORT_OPTION,
            )


def _database(settings: TransportSettings, options: RedisOptions) -> int:
    """Returns the number of the database in the URL's path."""
    text = settings.url.path.strip("/") or "0"
    if not (text.isascii() and text.isdecimal() and len(text) < 6):
        raise ConfigError(
            "transport: redis: the path names a database by number: redis://host/0",
            code=TRANSPORT_URL,
        )
    if options.cluster and text != "0":
        raise ConfigError("transport: redis: a cluster has only database 0", code=TRANSPORT_URL)
    if not (options.cluster or options.sentinel) and len(settings.url.hosts) > 1:
        raise ConfigError(
            "transport: redis: several hosts are a cluster or sentinels; add ?cluster=true or"
            " ?sentinel=NAME",
            code=TRANSPORT_OPTION,
        )
    return int(text)
