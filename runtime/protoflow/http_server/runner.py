"""Runs an aiohttp application: no access log, no silent connections."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, cast

from aiohttp import web
from aiohttp.typedefs import Handler

from protoflow.http_server.bodies import PATIENCE, BodyError
from protoflow.http_server.deadlines import Deadlines


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """Log records of aiohttp about invalid requests. Any client can send these, so they must not
    fill a log at INFO."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Logs at DEBUG for every level."""
        self.logger.debug(msg, *args, **kwargs)


class ServerRunner:
    """A runner of an application, which closes silent connections.

    Args:
        app: the application, whose middlewares may not be fixed yet.
        log: gets the records of aiohttp, at DEBUG.
        options: further options of aiohttp's server.

    Attributes:
        runner: the runner, for the sites that belong to it.
    """

    def __init__(self, app: web.Application, log: logging.Logger, **options: Any) -> None:
        # Access logs would contain query strings, and are not used here.
        self.runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=5.0,
            keepalive_timeout=PATIENCE, logger=cast("Any", _ProtocolLog(log)), **options,
        )  # fmt: skip
        self._deadlines: Deadlines | None = None
        app.middlewares.insert(0, self._watch())

    async def start(self) -> None:
        """Sets up the runner."""
        await self.runner.setup()
        if self.runner.server is None:
            raise RuntimeError("aiohttp made no server")
        self._deadlines = Deadlines(self.runner.server)

    async def stop(self) -> None:
        """Ends requests and closes the ports. Idempotent."""
        if self._deadlines is not None:
            self._deadlines.stop()
        await self.runner.cleanup()

    def _watch(self) -> Any:  # Any: aiohttp's type of middlewares
        @web.middleware
        async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self._deadlines is None:
                raise RuntimeError("the server was not started")
            return await self._deadlines.watch(request, handler)

        return watch


async def body_of(request: web.Request) -> AsyncIterator[bytes]:
    """Yields the body as it arrives. Raises BodyError if it cannot be read."""
    try:
        async for part in request.content.iter_any():
            yield part
    except web.RequestPayloadError:
        raise BodyError(400, "the body cannot be read") from None
