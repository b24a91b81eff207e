"""The pages of a service: the route table with the service behind it."""

from __future__ import annotations

from collections.abc import Collection

from protoflow.web.application import Application
from protoflow.web.host import Host
from protoflow.web.request import Request, Role
from protoflow.web.response import Problem, Response
from protoflow.web.route import Route
from protoflow.web.routes import ROUTES


def pages_of(
    host: Host, *, only: Collection[str] | None = None, without: Collection[str] = ()
) -> Application:
    """Returns the pages of a service.

    Args:
        host: the service.
        only: the paths that are served; None means all.
        without: paths that are not served.
    """

    async def answer(route: Route, request: Request) -> Response:
        if not host.started() and route.role is not Role.NONE:
            raise Problem(
                503, "the service has not started, or has stopped", headers={"Retry-After": "1"}
            )
        return await route.function(host, request)

    routes = [
        route
        for route in ROUTES
        if (only is None or route.path in only) and route.path not in without
    ]
    return Application(host.config, routes, answer)
