"""An ASGI application that starts and stops a service with itself.

https://asgi.readthedocs.io/en/latest/specs/lifespan.html
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from protoflow.errors import ProtoflowError
from protoflow.http_server.asgi import ASGIApplication, Message, Receive, Scope, Send

_log = logging.getLogger("protoflow.service")


class AsgiLifespan:
    """The application around which a service lives: it starts after the application has started,
    and drains before the application stops, so that handlers find what the application opened.

    Args:
        app: any ASGI application, also one without a lifespan.
        start: starts the service.
        stop: drains it.
    """

    def __init__(
        self,
        app: ASGIApplication,
        start: Callable[[], Awaitable[None]],
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self._app = app
        self._start = start
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request, or the lifespan."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        took: list[Message] = []

        async def take() -> Message:
            message = await receive()
            took.append(message)
            if message["type"] == "lifespan.shutdown":
                await self._stop()
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                message = await self._started()
            await send(message)

        try:
            await self._app(scope, take, answer)
        except Exception:
            if took:
                await self._stop()
                raise
        if not took:  # the application has no lifespan
            await take()
            started = await self._started()
            await send(started)
            if started["type"] == "lifespan.startup.complete":
                await take()
                await send({"type": "lifespan.shutdown.complete"})

    async def _started(self) -> Message:
        """Returns the answer to the server after starting the service."""
        try:
            await self._start()
        except ProtoflowError as error:
            # Servers go on without what an exception ends, so it is not raised.
            _log.critical("the service did not start", extra={"error": str(error)})
            return {"type": "lifespan.startup.failed", "message": f"protoflow: {error}"}
        return {"type": "lifespan.startup.complete"}
