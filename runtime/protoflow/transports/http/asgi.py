"""The receiver as an ASGI application, to be mounted in FastAPI, Starlette or Hypercorn.

    api.mount("/hooks", protoflow.transports.http.app)

It serves the services on its event loop whose transport is `http://`, without a host.
"""

from __future__ import annotations

import asyncio
from urllib.parse import unquote

from protoflow.http_server import asgi
from protoflow.http_server.bodies import read_body
from protoflow.transports.http.receiver import receiver_of
from protoflow.transports.http.requests import Answer, HttpRequest


async def app(scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send) -> None:
    """Receives the topics of services whose transport is `http://`."""
    if scope["type"] == "lifespan":
        await asgi.answer_lifespan(receive, send)
        return
    if scope["type"] != "http":
        raise RuntimeError(f"webhooks do not speak {scope['type']}")
    headers = asgi.headers_of(scope)
    whole = asyncio.Event()

    async def read(limit: int) -> bytes:
        announced = headers.get("content-length")
        body = await read_body(lambda: asgi.body_of(receive), announced, limit)
        whole.set()
        return body

    request = HttpRequest(
        method=scope["method"].upper(), path=unquote(asgi.path_of(scope)), headers=headers,
        read=read,
    )  # fmt: skip
    answer = await _unless_disconnected(request, whole, receive)
    if answer is not None:
        await _send(answer, send)


async def _unless_disconnected(
    request: HttpRequest, whole: asyncio.Event, receive: asgi.Receive
) -> Answer | None:
    """Returns the answer; None if the client has disconnected, so that the work is withdrawn."""

    async def gone() -> None:
        await whole.wait()  # only one may receive at a time
        await asgi.until_disconnected(receive)

    answering = asyncio.ensure_future(receiver_of(None).answer(request))
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        return answering.result() if answering.done() else None
    finally:
        answering.cancel()
        leaving.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _send(answer: Answer, send: asgi.Send) -> None:
    headers = {**answer.all_headers, "Content-Length": str(len(answer.body))}
    await send(
        {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
                for name, value in headers.items()
                if answer.status != 204 or name != "Content-Length"
            ],
        }
    )
    await send({"type": "http.response.body", "body": answer.body})
