"""The application: it turns a request into a response, on any server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TypeAlias

from protoflow.config.settings import Config
from protoflow.web.guard import PROBES, Guard
from protoflow.web.problems import problem_of
from protoflow.web.request import Request, Role
from protoflow.web.response import Problem, Response
from protoflow.web.route import Route
from protoflow.web.router import Router

_log = logging.getLogger("protoflow.web")

#: The number of requests that are answered at once; probes are not counted.
_AT_ONCE = 64

#: Answers a request of a route.
Answer: TypeAlias = Callable[[Route, Request], Awaitable[Response]]


class Application:
    """Answers requests: guard, router, deadline, errors as problems, headers.

    Args:
        config: tokens, origins, and the host to which the pages are bound.
        routes: the route table.
        answer: calls the function of a route.
    """

    def __init__(self, config: Config, routes: Iterable[Route], answer: Answer) -> None:
        self._guard = Guard(config)
        self._router = Router(routes)
        self._call = answer
        self._busy = 0

    async def answer(self, request: Request) -> Response:
        """Returns the response; an error also becomes a response."""
        try:
            response = await self._answer(replace(request, peer=self._guard.client(request)))
            if request.method == "HEAD":
                await response.close()
        except Exception as error:
            response = self.failed(error).response
        response.headers.update(self.headers(request))
        return response

    def admit(self, request: Request, needed: Role) -> Role:
        """Returns the role of a client that has the rights of `needed`. Raises Problem."""
        self._guard.check(request)
        role = self._guard.role(request)
        self._guard.authorize(request, needed, role)
        return role

    def _admits(self, request: Request, needed: Role) -> bool:
        try:
            self.admit(request, needed)
        except Problem:
            return False
        return True

    def headers(self, request: Request) -> Mapping[str, str]:
        """Returns the headers of every response."""
        return {
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            **self._guard.cors(request),
        }

    @staticmethod
    def failed(error: Exception) -> Problem:
        """Returns the error response for a client; logs details that the client must not see."""
        problem = problem_of(error)
        if problem.status == 500:
            _log.error(
                "a page failed: %s", type(error).__name__, exc_info=_log.isEnabledFor(logging.DEBUG)
            )
        return problem

    async def _answer(self, request: Request) -> Response:
        self._guard.check(request)
        if request.method == "OPTIONS" and self._guard.allows(request.headers.get("origin")):
            return Response(status=204)
        try:
            route, parameters = self._router.find(request)
        except Problem:
            # without a token, a client must not learn which paths exist
            self.admit(request, Role.READ)
            raise
        role = self.admit(request, route.role)
        routed = request.routed(parameters, role, lambda: self._admits(request, route.role))
        if request.path in PROBES:  # probes are answered even if the process is busy
            return await self._call(route, routed)
        if self._busy >= _AT_ONCE:
            raise Problem(503, "too many requests at once", headers={"Retry-After": "1"})
        self._busy += 1
        try:
            response = await self._in_time(route, routed)
        except BaseException:
            self._free()
            raise
        if response.stream is None:
            self._free()
        else:  # the request ends when the last part is sent
            response.ended = self._free
        return response

    async def _in_time(self, route: Route, request: Request) -> Response:
        try:
            async with asyncio.timeout(route.seconds):
                return await self._call(route, request)
        except TimeoutError:
            undone = "" if route.role < Role.OPERATE else "; what is done so far stays done"
            raise Problem(504, f"not answered within {route.seconds:g} s{undone}") from None

    def _free(self) -> None:
        self._busy -= 1
