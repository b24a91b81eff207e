"""The HTTP server of a service."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

from protoflow.config.settings import Config
from protoflow.errors import ConfigError, MissingExtraError
from protoflow.observability.health import Health
from protoflow.observability.report import Reporter
from protoflow.transport.kit.dead_letters import DeadLetters

try:
    from aiohttp import web
except ImportError as error:
    raise MissingExtraError("http", "aiohttp") from error

from protoflow.web.dead_letters import DeadLetterPages
from protoflow.web.deadlines import PATIENCE, Deadlines
from protoflow.web.guard import Guard, Page, problem
from protoflow.web.pages import Pages, metrics_page, metrics_page_if_any

_log = logging.getLogger("protoflow.web")


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """Records of aiohttp about requests that are no HTTP: anybody may send such, so they must not
    fill a log at INFO."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """At DEBUG, whatever the level."""
        self.logger.debug(msg, *args, **kwargs)


class WebServer:
    """Serves the pages; one for a service, on one port or two."""

    def __init__(
        self,
        config: Config,
        reporter: Reporter,
        dead_letters: DeadLetters,
        health: Callable[[], Health],
        handlers: Mapping[tuple[str, str], Page],
    ) -> None:
        self._config = config
        self._reporter = reporter
        self._guard = Guard(config.http_host, config.http_token, config.http_cors)
        self._pages = Pages(reporter, health, self._guard)
        self._dead_letters = DeadLetterPages(dead_letters, reporter)
        self._handlers = handlers
        self._runners: list[web.AppRunner] = []
        self._deadlines: list[Deadlines] = []

    async def start_pages(self, port: int) -> int:
        """Serves all pages; the port, which 0 leaves to the system. Raises ConfigError."""
        routes = [*self._pages.routes(), *self._dead_letters.routes()]
        routes += [web.route(method, path, page) for (method, path), page in self._handlers.items()]
        if self._config.metrics_port in (0, port):
            routes.append(web.get("/metrics", metrics_page_if_any(self._reporter)))
        return await self._serve(routes, port)

    async def start_metrics(self, port: int) -> int:
        """Serves `/metrics` alone; the port. Raises ConfigError, MissingExtraError."""
        return await self._serve([web.get("/metrics", metrics_page(self._reporter))], port)

    async def stop(self) -> None:
        """Ends requests and closes the ports. Idempotent."""
        for deadlines in self._deadlines:
            deadlines.stop()
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.cleanup()

    async def _watched(self, app: web.Application, runner: web.AppRunner) -> None:
        """Sets the runner up; connections that say nothing are closed."""
        found: list[Deadlines] = []

        @web.middleware
        async def watch(request: web.Request, handler: Page) -> web.StreamResponse:
            return await found[0].watch(request, handler)

        app.middlewares.insert(0, watch)
        await runner.setup()
        if runner.server is None:
            raise RuntimeError("aiohttp made no server")
        found.append(Deadlines(runner.server))
        self._deadlines += found

    async def _serve(self, routes: list[web.RouteDef], port: int) -> int:
        app = web.Application()
        app.middlewares.append(_unbroken)
        app.middlewares.append(self._guard.middleware())
        app.on_response_prepare.append(_plain_headers)
        app.add_routes(routes)
        # Access logs would show query strings; nobody reads them here.
        runner = web.AppRunner(
            app, access_log=None, handle_signals=False, shutdown_timeout=5.0,
            keepalive_timeout=PATIENCE, logger=cast("Any", _ProtocolLog(_log)),
        )  # fmt: skip
        await self._watched(app, runner)
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
        _log.info("the HTTP server started", extra={"host": host, "port": bound})
        return bound


@web.middleware
async def _unbroken(request: web.Request, handler: Page) -> web.StreamResponse:
    """Whatever a page raises is an answer, and one line of the log."""
    try:
        return await handler(request)
    except web.HTTPException:
        raise
    except Exception as error:
        _log.error(
            "a page failed",
            extra={"error": type(error).__name__},
            exc_info=_log.isEnabledFor(logging.DEBUG),
        )
        return problem(500, "the page failed; the log of the service says more")


async def _plain_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Forbids caching and sniffing, and hides the name of the server."""
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers.popall("Server", None)
