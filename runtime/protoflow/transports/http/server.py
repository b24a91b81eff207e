"""Listens on an address."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import unquote

from aiohttp import web

from protoflow.error_codes import CANNOT_LISTEN, TRANSPORT_OPTION
from protoflow.errors import ConfigError
from protoflow.http_server.bodies import read_body
from protoflow.http_server.runner import ServerRunner, body_of
from protoflow.transports.http.options import HttpOptions
from protoflow.transports.http.requests import Answer, HttpRequest

_log = logging.getLogger("protoflow.transports.http")
#: The largest header in bytes: metadata is one header.
_LARGEST_HEADER: Final = 64 * 1024


class Listener:
    """A server on one address.

    Args:
        answer: answers requests.
    """

    def __init__(self, answer: Callable[[HttpRequest], Awaitable[Answer]]) -> None:
        self._answer_request = answer
        app = web.Application()
        app.on_response_prepare.append(_hide_server)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # If the client disconnects, its handler is cancelled. The body is signed as it was sent,
        # so it is not decompressed.
        self._runner = ServerRunner(
            app, _log, handler_cancellation=True, auto_decompress=False,
            max_field_size=_LARGEST_HEADER,
        )  # fmt: skip

    async def start(self, host: str, port: int, options: HttpOptions, scheme: str) -> None:
        """Listens. Raises ConfigError if the address cannot be used."""
        tls = _server_tls(options) if scheme == "https" else None
        await self._runner.start()
        site = web.TCPSite(
            self._runner.runner, host, port, ssl_context=tls, reuse_port=options.reuse_port or None
        )
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise ConfigError(
                f"transport: http: {host}:{port} cannot be served: {error.strerror}",
                code=CANNOT_LISTEN,
            ) from error
        _log.info("receiving on %s://%s:%d", scheme, host, port)

    async def stop(self) -> None:
        """Closes the port and ends requests. Idempotent."""
        await self._runner.stop()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        async def read(limit: int) -> bytes:
            announced = request.headers.get("Content-Length")
            return await read_body(lambda: body_of(request), announced, limit)

        answer = await self._answer_request(
            HttpRequest(
                method=request.method,
                path=unquote(request.rel_url.raw_path),
                headers={name.lower(): value for name, value in request.headers.items()},
                read=read,
            )
        )
        return web.Response(status=answer.status, body=answer.body, headers=answer.all_headers)


async def _hide_server(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)


def _server_tls(options: HttpOptions) -> ssl.SSLContext:
    path = options.server_cert_file
    if path is None:
        raise ConfigError(
            "transport: http: receiving on https:// needs option server_cert_file",
            code=TRANSPORT_OPTION,
        )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    password = options.server_key_password.reveal() if options.server_key_password else ""
    try:
        # The password is text, because OpenSSL would otherwise ask on the terminal.
        context.load_cert_chain(path, options.server_key_file, password)
    except OSError as error:  # ssl.SSLError is an OSError
        raise ConfigError(
            f"transport: http: option server_cert_file: {path} cannot be loaded:"
            f" {error.strerror or type(error).__name__}",
            code=TRANSPORT_OPTION,
        ) from error
    return context
