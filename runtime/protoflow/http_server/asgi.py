"""What every ASGI application does: its lifespan, the path below its mount, and the body.

https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import quote

from protoflow.http_server.bodies import BodyError

Message: TypeAlias = MutableMapping[str, Any]
Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApplication: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Starts and ends immediately, because the service has a separate lifetime."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def headers_of(scope: Scope) -> dict[str, str]:
    """Returns the headers of a request by lower-case name."""
    return {
        name.decode("latin-1").lower(): value.decode("utf-8", "surrogateescape")
        for name, value in scope["headers"]
    }


def path_of(scope: Scope) -> str:
    """Returns the path below the mount, percent-encoded, because an id may contain slashes."""
    raw = scope.get("raw_path")
    path: str = raw.decode("latin-1") if raw else quote(scope["path"])
    root = quote(scope.get("root_path", "")).rstrip("/")
    # Older servers and frameworks do not include the mount in the path.
    beneath = path[len(root) :] if path == root or path.startswith(f"{root}/") else path
    return beneath or "/"


async def body_of(receive: Receive) -> AsyncIterator[bytes]:
    """Yields the body as it arrives. Raises BodyError if the client disconnects."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BodyError(400, "the body cannot be read")
        yield message.get("body", b"")
        more = message.get("more_body", False)


async def until_disconnected(receive: Receive) -> None:
    """Returns when the client disconnects. Servers only report this to an application that
    receives."""
    while (await receive())["type"] != "http.disconnect":
        pass
