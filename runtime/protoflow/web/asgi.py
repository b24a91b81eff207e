"""The HTTP pages as an ASGI application, to be mounted in FastAPI, Starlette or Django.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from protoflow.http_server import asgi as server
from protoflow.http_server.addresses import is_loopback
from protoflow.http_server.asgi import ASGIApplication as ASGIApplication
from protoflow.http_server.asgi import Receive as Receive
from protoflow.http_server.asgi import Scope as Scope
from protoflow.http_server.asgi import Send as Send
from protoflow.http_server.bodies import BodyError, read_body
from protoflow.web.application import Application
from protoflow.web.guard import is_secure
from protoflow.web.request import LARGEST_BODY, Request
from protoflow.web.response import EVENTS, Problem, Response


def asgi(application: Application) -> ASGIApplication:
    """Returns an ASGI application, which only serves HTTP."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await server.answer_lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the pages of Protoflow do not speak {scope['type']}")
        request = _request(scope, receive)
        response = await application.answer(request)
        if response.content_type == EVENTS:
            await _until_gone(_send(request, response, send), receive)
        else:
            await _send(request, response, send)

    return app


async def _until_gone(sending: Coroutine[Any, Any, None], receive: Receive) -> None:
    """Sends until the client disconnects. Servers only report this to an application that
    receives."""
    sender = asyncio.ensure_future(sending)
    gone = asyncio.ensure_future(server.until_disconnected(receive))
    try:
        await asyncio.wait((sender, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not sender.done():
            sender.cancel()
        await asyncio.gather(sender, gone, return_exceptions=True)


def _request(scope: Scope, receive: Receive) -> Request:
    client, served = scope.get("client"), scope.get("server")
    headers = server.headers_of(scope)
    return Request(
        method=scope["method"].upper(),
        path=server.path_of(scope),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        # The client and the requested address both belong to this machine.
        local=served is not None
        and is_loopback(served[0])
        and (client is None or is_loopback(client[0])),
        peer=client[0] if client else "",
        secure=is_secure(scope.get("scheme", "http"), headers.get("x-forwarded-proto")),
        read=lambda: _body(receive, headers.get("content-length")),
    )


async def _body(receive: Receive, announced: str | None) -> bytes:
    try:
        return await read_body(lambda: server.body_of(receive), announced, LARGEST_BODY)
    except BodyError as error:
        raise Problem(error.status, str(error)) from None


async def _send(request: Request, response: Response, send: Send) -> None:
    headers = {**response.headers, "Content-Type": response.content_type}
    if response.stream is None:
        headers["Content-Length"] = str(len(response.body))
    try:
        await send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": [
                    (name.lower().encode("latin-1"), value.encode("latin-1"))
                    for name, value in (
                        *headers.items(),
                        *(("set-cookie", cookie) for cookie in response.cookies),
                    )
                ],
            }
        )
        await response.write_to(
            lambda part: send({"type": "http.response.body", "body": part, "more_body": True})
        )
    finally:
        await response.close()
    body = b"" if request.method == "HEAD" else response.body
    await send({"type": "http.response.body", "body": body})
