"""The HTTP server of a service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from protoflow.config import Config
from protoflow.errors import ConfigError, MissingExtraError
from protoflow.observability.dead_letters import DeadLetterDesk
from protoflow.observability.report import Observatory

try:
    from aiohttp import web
except ImportError as error:
    raise MissingExtraError("http", "aiohttp") from error

from protoflow.web.guard import Guard, Page
from protoflow.web.letters import LetterPages
from protoflow.web.pages import Health, Pages, metrics_page, metrics_page_if_any

_log = logging.getLogger("protoflow.web")


class WebServer:
    """Serves the pages; one for a service, on one port or two."""

    def __init__(
        self,
        config: Config,
        observatory: Observatory,
        desk: DeadLetterDesk,
        health: Callable[[], Health],
        handlers: Mapping[tuple[str, str], Page],
    ) -> None:
        self._config = config
        self._observatory = observatory
        self._guard = Guard(config.http_host, config.http_token, config.http_cors)
        self._pages = Pages(observatory, health, self._guard)
        self._letters = LetterPages(desk, observatory)
        self._handlers = handlers
        self._runners: list[web.AppRunner] = []

    async def start_pages(self, port: int) -> int:
        """Serves all pages; the port, which 0 leaves to the system. Raises ConfigError."""
        routes = [*self._pages.routes(), *self._letters.routes()]
        routes += [web.route(method, path, page) for (method, path), page in self._handlers.items()]
        if self._config.metrics_port in (0, port):
            routes.append(web.get("/metrics", metrics_page_if_any(self._observatory)))
        return await self._serve(routes, port)

    async def start_metrics(self, port: int) -> int:
        """Serves `/metrics` alone; the port. Raises ConfigError, MissingExtraError."""
        return await self._serve([web.get("/metrics", metrics_page(self._observatory))], port)

    async def stop(self) -> None:
        """Ends requests and closes the ports. Idempotent."""
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.cleanup()

    async def _serve(self, routes: list[web.RouteDef], port: int) -> int:
        app = web.Application(middlewares=[self._guard.middleware()])
        app.add_routes(routes)
        # Access logs would show query strings; nobody reads them here.
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=5.0)
        await runner.setup()
        self._runners.append(runner)
        host = self._config.http_host
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"http_host, http_port: {host}:{port} cannot be served: {error.strerror}"
            ) from error
        bound = int(runner.addresses[0][1])
        _log.info("serving on http://%s:%d", host, bound)
        return bound
