"""The HTTP pages as an ASGI application, to be mounted in FastAPI, Starlette or Django.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import quote

from protoflow.web.application import Application
from protoflow.web.guard import is_loopback, is_secure
from protoflow.web.request import LARGEST_BODY, Request
from protoflow.web.response import EVENTS, Problem, Response

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Seconds for the arrival of a whole body.
_PATIENCE = 15.0


def asgi(application: Application) -> ASGIApplication:
    """Returns an ASGI application, which only serves HTTP."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
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
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((sender, gone), return_when=asyncio.FIRST_COMPLETED)
    finally:
        gone.cancel()
        if not sender.done():
            sender.cancel()
        await asyncio.gather(sender, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _lifespan(receive: Receive, send: Send) -> None:
    """Starts and ends immediately, because the service has a separate lifetime."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _request(scope: Scope, receive: Receive) -> Request:
    client, server = scope.get("client"), scope.get("server")
    headers = {
        name.decode("latin-1").lower(): value.decode("utf-8", "surrogateescape")
        for name, value in scope["headers"]
    }
    return Request(
        method=scope["method"].upper(),
        path=_path(scope),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        # The client and the requested address both belong to this machine.
        local=server is not None
        and is_loopback(server[0])
        and (client is None or is_loopback(client[0])),
        peer=client[0] if client else "",
        secure=is_secure(scope.get("scheme", "http"), headers.get("x-forwarded-proto")),
        read=lambda: _body(receive),
    )


def _path(scope: Scope) -> str:
    """Returns the path below the mount, percent-encoded, because an id may contain slashes."""
    raw = scope.get("raw_path")
    path: str = raw.decode("latin-1") if raw else quote(scope["path"])
    root = quote(scope.get("root_path", "")).rstrip("/")
    # Older servers and frameworks do not include the mount in the path.
    beneath = path[len(root) :] if path == root or path.startswith(f"{root}/") else path
    return beneath or "/"


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size, more = 0, True
    try:
        async with asyncio.timeout(_PATIENCE):
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem(400, "the body cannot be read")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                more = message.get("more_body", False)
                if size > LARGEST_BODY:
                    raise Problem(413, f"the body is larger than {LARGEST_BODY} bytes")
    except TimeoutError:
        raise Problem(408, "the body did not come in time") from None
    return b"".join(parts)


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
