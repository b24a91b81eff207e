"""The HTTP server of a service, on aiohttp."""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from protoflow.config.settings import Config
from protoflow.error_codes import CANNOT_LISTEN
from protoflow.errors import ConfigError, MissingExtraError

try:
    from aiohttp import web
except ImportError as error:
    raise MissingExtraError("http", "aiohttp") from error

from protoflow.http_server.addresses import is_loopback
from protoflow.http_server.bodies import BodyError, read_body
from protoflow.http_server.runner import ServerRunner, body_of
from protoflow.web.application import Application
from protoflow.web.guard import is_secure
from protoflow.web.request import LARGEST_BODY, Request, Role
from protoflow.web.response import Problem, Response

_log = logging.getLogger("protoflow.web")

#: A handler of the user's application.
Page: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class WebServer:
    """Serves applications on ports and sockets.

    Args:
        config: the addresses to bind.
        handlers: the user's handlers, by method and path of aiohttp.
    """

    def __init__(
        self, config: Config, handlers: Mapping[tuple[str, str], Page] | None = None
    ) -> None:
        self._host = config.http_host
        self._handlers = handlers or {}
        self._runners: list[ServerRunner] = []

    async def serve(self, application: Application, port: int) -> int:
        """Serves on a port and returns it; for 0 the system chooses one. Raises ConfigError."""
        runner = await self._runner(application, is_loopback(self._host))
        site = web.TCPSite(runner, self._host, port)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"http_host, http_port: {self._host}:{port} cannot be served: {error.strerror}",
                code=CANNOT_LISTEN,
            ) from error
        bound = int(runner.addresses[0][1])
        _log.info("serving on http://%s:%d", self._host, bound)
        return bound

    async def serve_socket(self, application: Application, path: str) -> None:
        """Serves on a Unix socket that only the user of the process can reach.

        Raises:
            ConfigError: the socket cannot be created.
        """
        runner = await self._runner(application, local=True)
        before = os.umask(0o177)
        try:
            await web.UnixSite(runner, path).start()
        except NotImplementedError:  # Windows
            raise ConfigError(
                "http_socket: this system has no Unix sockets; use http_port"
            ) from None
        except OSError as error:
            raise ConfigError(
                f"http_socket: {path} cannot be served: {error.strerror}", code=CANNOT_LISTEN
            ) from error
        finally:
            os.umask(before)
        _log.info("serving on %s", path)

    async def stop(self) -> None:
        """Ends requests and closes the ports. Idempotent."""
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.stop()

    async def _runner(self, application: Application, local: bool) -> web.AppRunner:
        adapter = _Adapter(application, local)
        app = web.Application(client_max_size=LARGEST_BODY)  # for the handlers of users
        app.on_response_prepare.append(adapter.prepare)
        app.add_routes(
            web.route(method, path, adapter.guarded(page))
            for (method, path), page in self._handlers.items()
        )
        app.router.add_route("*", "/{path:.*}", adapter.answer)
        runner = ServerRunner(app, _log)
        await runner.start()
        self._runners.append(runner)
        return runner.runner


class _Adapter:
    """Converts requests and responses between aiohttp and this package.

    Args:
        application: the application that answers.
        local: whether only this machine can reach the server.
    """

    def __init__(self, application: Application, local: bool) -> None:
        self._application = application
        self._local = local

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answers with the application."""
        response = await self._application.answer(self._request(request))
        return await _sent(request, response)

    def guarded(self, page: Page) -> Page:
        """Returns a user's handler behind the guard; all methods except GET and HEAD need
        `operate`."""

        async def answer(request: web.Request) -> web.StreamResponse:
            reads = request.method in ("GET", "HEAD")
            try:
                self._application.admit(
                    self._request(request), Role.READ if reads else Role.OPERATE
                )
                return await page(request)
            except web.HTTPException:
                raise
            except Exception as error:
                return _whole(self._application.failed(error).response)

        return answer

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Sets the headers of every response, and hides the name of the server."""
        response.headers.update(self._application.headers(self._request(request)))
        response.headers.popall("Server", None)

    def _request(self, request: web.Request) -> Request:
        path, _, query = request.raw_path.partition("?")
        return Request(
            method=request.method,
            path=path if path.startswith("/") else request.rel_url.raw_path,
            query=query,
            headers={name.lower(): value for name, value in request.headers.items()},
            local=self._local,
            peer=request.remote or "",
            secure=is_secure(request.scheme, request.headers.get("X-Forwarded-Proto")),
            read=lambda: _body(request),
        )


async def _body(request: web.Request) -> bytes:
    try:
        announced = request.headers.get("Content-Length")
        return await read_body(lambda: body_of(request), announced, LARGEST_BODY)
    except BodyError as error:
        raise Problem(error.status, str(error)) from None


def _whole(response: Response) -> web.Response:
    headers = {**response.headers, "Content-Type": response.content_type}
    made = web.Response(status=response.status, body=response.body, headers=headers)
    for cookie in response.cookies:
        made.headers.add("Set-Cookie", cookie)
    return made


async def _sent(request: web.Request, response: Response) -> web.StreamResponse:
    if response.stream is None:
        return _whole(response)
    stream = web.StreamResponse(
        status=response.status,
        headers={**response.headers, "Content-Type": response.content_type},
    )
    try:
        await stream.prepare(request)
        await response.write_to(stream.write)
        await stream.write_eof()
    finally:
        await response.close()
    return stream
