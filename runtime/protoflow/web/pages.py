"""Pages of handlers, health and metrics."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from protoflow.errors import MissingExtraError
from protoflow.observability.health import Health
from protoflow.observability.report import Reporter
from protoflow.web.guard import Guard, Page, problem


class Pages:
    """The pages that look at a service."""

    def __init__(self, reporter: Reporter, health: Callable[[], Health], guard: Guard) -> None:
        self._reporter = reporter
        self._health = health
        self._guard = guard

    def routes(self) -> list[web.RouteDef]:
        """What is asked where."""
        return [
            web.get("/api/handlers", self.handlers),
            web.get("/healthz", self.live),
            web.get("/readyz", self.ready),
        ]

    async def handlers(self, _request: web.Request) -> web.Response:
        """Every handler and its state, as the Go runtime's `HandlerInfo`."""
        await self._reporter.refresh()
        return web.json_response([info.as_dict() for info in self._reporter.handlers()])

    async def live(self, request: web.Request) -> web.Response:
        """200 while the process should live."""
        return self._state(request, self._health().live)

    async def ready(self, request: web.Request) -> web.Response:
        """200 while it does its work: connected, assigned, not wedged."""
        return self._state(request, self._health().ready)

    def _state(self, request: web.Request, good: bool) -> web.Response:
        told: dict[str, object] = {"status": "ok" if good else "failing"}
        if self._guard.authorized(request):  # probes have no token: they get the status alone
            told["problems"] = self._health().problems
        return web.json_response(told, status=200 if good else 503)


def metrics_page(reporter: Reporter) -> Page:
    """`/metrics` for Prometheus. Raises MissingExtraError."""
    from protoflow.observability.prometheus import Exposition

    exposition = Exposition(reporter)

    async def metrics(request: web.Request) -> web.StreamResponse:
        await reporter.refresh()
        text, content_type = exposition.render(request.headers.get("Accept", ""))
        return web.Response(body=text, headers={"Content-Type": content_type})

    return metrics


def metrics_page_if_any(reporter: Reporter) -> Page:
    """The same, or a page that says what is missing."""
    try:
        return metrics_page(reporter)
    except MissingExtraError as error:
        text = str(error)

        async def missing(_request: web.Request) -> web.StreamResponse:
            return problem(501, text)

        return missing
