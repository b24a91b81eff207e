"""Connects one client to the servers in turn, and describes failures."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from nats import errors

from protoflow.error_codes import TLS
from protoflow.errors import AuthenticationError, ConnectionFailedError, TransportError
from protoflow.transport.interface import TransportSettings
from protoflow.transports.nats.options import ConnectionOptions
from protoflow.transports.nats.wire.client import FastClient
from protoflow.transports.nats.wire.credentials import credentials
from protoflow.transports.nats.wire.servers import Server, Servers

_AUTHENTICATION = ("authorization", "authentication", "user jwt", "nkey")
_RETRY = 0.2
_ATTEMPT = 5.0
#: ... if there are other servers to try.
_ATTEMPT_OF_SEVERAL = 3.0
_FAREWELL = 1.0


class _TLSMissing(errors.Error):
    pass


class _SecureClient(FastClient):
    """A client that sends no credentials to a server without TLS; nats-py would."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and not info.get("tls_required"):
            raise _TLSMissing
        await super()._process_info(info, initial_connection)


class Dialer:
    """Makes clients.

    Args:
        on_error: called with errors that a client reports.
    """

    def __init__(
        self,
        settings: TransportSettings,
        options: ConnectionOptions,
        on_error: Callable[[Exception], Awaitable[None]],
    ) -> None:
        self.servers = Servers(settings.url)
        self._settings = settings
        self._options = options
        self._on_error = on_error

    async def dial(self, patience: float = 0.0) -> FastClient:
        """Returns a connected client of any server; attempts are repeated for `patience` seconds.
        Raises ConnectionFailedError, AuthenticationError or ConfigError; none contains a secret."""
        arguments = connect_arguments(self._settings, self._options)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        while True:
            servers = self.servers.round()
            most = _ATTEMPT if len(servers) == 1 else _ATTEMPT_OF_SEVERAL
            last, final = None, None
            for left, server in zip(range(len(servers), 0, -1), servers, strict=True):
                limit = most
                if patience:
                    limit = max(0.1, min(most, (deadline - loop.time()) / left))
                client, error = await self._attempt(server, arguments, limit)
                if client is not None:
                    return client
                last = error or last
                final = final or self._final(last)
            if final is not None:
                raise final from last
            if loop.time() + _RETRY > deadline:
                waited = f" within {patience:g} s" if patience else ""
                raise ConnectionFailedError(
                    f"{self._settings.url.safe} is not reachable{waited} ({_text(last)});"
                    " is a server running there?"
                ) from last
            await asyncio.sleep(_RETRY)

    async def _attempt(
        self, server: Server, arguments: dict[str, Any], limit: float
    ) -> tuple[FastClient | None, Exception | None]:
        """Returns a client of this server, or the reason for the failure."""
        last: Exception | None = None

        async def remember(error: Exception) -> None:
            nonlocal last
            last = error
            await self._on_error(error)

        self.servers.trying(server)
        client = _SecureClient() if "tls" in arguments else FastClient()
        given = {**arguments, **self._of(server, arguments), "connect_timeout": limit}
        try:
            async with asyncio.timeout(limit):
                await client.connect(**given, error_cb=remember)
        except Exception as error:  # any program may answer at this address
            if isinstance(error, errors.NoServersError) and last is not None:
                return None, last
            return None, error
        else:
            return client, None
        finally:
            if not client.is_connected:
                await discard(client)

    def _of(self, server: Server, arguments: dict[str, Any]) -> dict[str, Any]:
        host, port = server
        address = f"[{host}]" if ":" in host else host
        found: dict[str, Any] = {"servers": [f"nats://{address}:{port}"]}
        if "tls" in arguments and self.servers.is_learned(server):
            # Certificates contain names, but servers announce addresses.
            names = [given for given, _ in self._settings.url.hosts if not _is_ip(given)]
            if names and _is_ip(host):
                found["tls_hostname"] = names[0]
        return found

    def _final(self, error: Exception | None) -> TransportError | None:
        """Returns an error that another attempt cannot fix."""
        url = self._settings.url
        if isinstance(error, _TLSMissing):
            return ConnectionFailedError(
                f"{url.safe} does not demand TLS; configure it there, or use the scheme "
                f"{url.scheme.removesuffix('+tls')}://",
                code=TLS,
            )
        if isinstance(error, ssl.SSLError):
            return ConnectionFailedError(f"{url.safe}: TLS failed: {error.reason}", code=TLS)
        if any(word in str(error).lower() for word in _AUTHENTICATION):
            return AuthenticationError(
                f"{url.safe} refused the credentials; check user and password, token, "
                "nkey or credentials file"
            )
        return None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _text(error: Exception | None) -> str:
    if isinstance(error, TimeoutError) or error is None:
        return "no answer"
    # The text of other errors may contain anything, for example a seed.
    known = isinstance(error, errors.Error | OSError)
    return (str(error) if known else "") or type(error).__name__


async def discard(client: FastClient) -> None:
    """Closes a client, even if it works only partly."""
    try:
        # With TLS, it waits for a message that the server does not send.
        async with asyncio.timeout(_FAREWELL):
            await client.close()
    except Exception:
        client.abort()
    except asyncio.CancelledError:
        client.abort()
        raise


def connect_arguments(
    settings: TransportSettings, options: ConnectionOptions
) -> dict[str, Any]:  # Any: the keywords of nats-py have many types
    """Returns the arguments of nats-py's `connect`, with credentials. Raises ConfigError."""
    url = settings.url
    arguments: dict[str, Any] = {
        "name": settings.client_name,
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": _RETRY,
        "ping_interval": options.ping_interval,
        "max_outstanding_pings": options.max_pings,
    }
    arguments |= credentials(url, options)
    encrypted = url.scheme.endswith("+tls")
    scheme = url.scheme.removesuffix("+tls")
    context = options.tls_context(scheme, f"{scheme}+tls", encrypted=encrypted)
    if context is not None:
        arguments["tls"] = context
        arguments["tls_handshake_first"] = options.tls_first
    return arguments
