"""Closes connections that send no complete request: each one holds a file descriptor."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from protoflow.http_server.bodies import PATIENCE


class Deadlines:
    """Watches the connections of one server.

    Args:
        server: the server of the connections.
        patience: seconds that a connection may spend without a request being answered.
    """

    def __init__(self, server: web.Server, patience: float = PATIENCE) -> None:
        self._server = server
        self._patience = patience
        #: The start of the silence of a connection; None while a request is answered.
        self._since: dict[Any, float | None] = {}
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(patience / 3, self._look)

    def stop(self) -> None:
        """Stops watching. It is idempotent."""
        self._timer.cancel()

    async def watch(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answers a request; meanwhile its connection has no time limit."""
        connection = request.protocol
        self._since[connection] = None
        try:
            return await handler(request)
        finally:
            self._since[connection] = self._loop.time()

    def _look(self) -> None:
        now = self._loop.time()
        open_ = self._server.connections
        self._since = {one: self._since.get(one, now) for one in open_}
        for connection, since in self._since.items():
            if since is not None and now - since >= self._patience:
                connection.force_close()
        self._timer = self._loop.call_later(self._patience / 3, self._look)
