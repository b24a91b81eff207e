"""Connecting one client: servers, credentials, TLS, and what went wrong."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ssl
from collections.abc import Awaitable, Callable
from typing import Any

from nats import errors

from protoflow.errors import AuthenticationError, ConfigError, ConnectionFailedError
from protoflow.transport import TransportSettings
from protoflow.transports.nats.client import FastClient
from protoflow.transports.nats.options import ConnectionOptions

_AUTHENTICATION = ("authorization", "authentication", "user jwt", "nkey")
_RETRY = 0.2
_ATTEMPT = 5.0
_FAREWELL = 1.0


class _TLSMissing(errors.Error):
    pass


class _SecureClient(FastClient):
    """A client that sends no credentials to a server without TLS; nats-py would."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if initial_connection and not info.get("tls_required"):
            raise _TLSMissing
        await super()._process_info(info, initial_connection)


async def dial(
    settings: TransportSettings,
    options: ConnectionOptions,
    on_error: Callable[[Exception], Awaitable[None]],
    patience: float = 0.0,
) -> FastClient:
    """A connected client, tried again and again for `patience` seconds. Raises
    ConnectionFailedError or AuthenticationError; neither shows a secret."""
    arguments = connect_arguments(settings, options)
    secure = settings.url.scheme.endswith("+tls")
    last: Exception | None = None

    async def remember(error: Exception) -> None:
        nonlocal last
        last = error
        await on_error(error)

    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    while True:
        client = _SecureClient() if secure else FastClient()
        try:
            async with asyncio.timeout(max(0.1, deadline - loop.time()) if patience else _ATTEMPT):
                await client.connect(**arguments, error_cb=remember)
        except (errors.Error, OSError, TimeoutError) as error:
            last = _cause(error, last)
            _raise_for(last, settings)
        else:
            return client
        finally:
            if not client.is_connected:
                await discard(client)
        if loop.time() + _RETRY > deadline:
            waited = f" within {patience:g} s" if patience else ""
            raise ConnectionFailedError(
                f"{settings.url.safe} is not reachable{waited} ({_text(last)});"
                " is a server running there?"
            ) from last
        await asyncio.sleep(_RETRY)


def _cause(error: Exception, last: Exception | None) -> Exception:
    return last if isinstance(error, errors.NoServersError) and last is not None else error


def _raise_for(error: Exception, settings: TransportSettings) -> None:
    """Raises for what trying again does not mend."""
    if isinstance(error, _TLSMissing):
        raise ConnectionFailedError(
            f"{settings.url.safe} does not demand TLS; configure it there, or use the scheme "
            f"{settings.url.scheme.removesuffix('+tls')}://"
        ) from error
    if isinstance(error, ssl.SSLError):
        raise ConnectionFailedError(f"{settings.url.safe}: TLS failed: {error.reason}") from error
    if any(word in str(error).lower() for word in _AUTHENTICATION):
        raise AuthenticationError(
            f"{settings.url.safe} refused the credentials; check user and password, token, "
            "nkey or credentials file"
        ) from error


def _text(error: Exception | None) -> str:
    return "no answer" if error is None else str(error) or type(error).__name__


async def discard(client: FastClient) -> None:
    """Closes a client; it may be half dead, and nothing depends on it any more."""
    with contextlib.suppress(Exception):
        # With TLS it waits for a farewell that the server does not send.
        async with asyncio.timeout(_FAREWELL):
            await client.close()


def connect_arguments(
    settings: TransportSettings, options: ConnectionOptions
) -> dict[str, Any]:  # Any: nats-py's keywords are of many types
    """The arguments of nats-py's `connect`, credentials included. Raises ConfigError."""
    url = settings.url
    hosts = url.hosts or (("127.0.0.1", None),)
    arguments: dict[str, Any] = {
        "servers": [
            f"nats://{f'[{host}]' if ':' in host else host}:{port or 4222}" for host, port in hosts
        ],
        "name": settings.client_name,
        "allow_reconnect": False,
        "max_reconnect_attempts": 1,
        "reconnect_time_wait": _RETRY,
        "connect_timeout": min(_ATTEMPT, settings.connect_timeout),
        "ping_interval": options.ping_interval,
        "max_outstanding_pings": options.max_pings,
    }
    arguments |= _credentials(settings, options)
    if url.scheme.endswith("+tls"):
        arguments["tls"] = _tls_context(options)
        arguments["tls_handshake_first"] = options.tls_first
        if options.tls_hostname:
            arguments["tls_hostname"] = options.tls_hostname
    elif options.tls_ca or options.tls_certificate or options.tls_first or options.tls_hostname:
        raise ConfigError(f"transport: options tls_* need the scheme {url.scheme}+tls://")
    return arguments


def _credentials(settings: TransportSettings, options: ConnectionOptions) -> dict[str, Any]:
    url = settings.url
    user, password = url.user or options.user, url.password or options.password
    keys = options.nkey_seed or options.nkey_file or options.credentials_file
    if keys and importlib.util.find_spec("nkeys") is None:
        raise ConfigError("transport: nats: NKeys and credentials files need: pip install nkeys")
    found: dict[str, Any] = {}
    if options.token:
        found["token"] = options.token.reveal()
    elif user and not password:
        found["token"] = user  # nats://token@host, as everywhere with NATS
    elif user and password:
        found |= {"user": user, "password": password.reveal()}
    if options.credentials_file:
        found["user_credentials"] = options.credentials_file
    if options.nkey_file:
        found["nkeys_seed"] = options.nkey_file
    if options.nkey_seed:
        found["nkeys_seed_str"] = options.nkey_seed.reveal()
    return found


def _tls_context(options: ConnectionOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
        if options.tls_certificate:
            context.load_cert_chain(options.tls_certificate, options.tls_key)
    except OSError as error:
        raise ConfigError(
            f"transport: nats: the TLS files cannot be read: {error.strerror or error}"
        ) from error
    return context
