"""A small HTTP server for ASGI applications, so that a browser can see what is mounted in one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serves an application on a free port; gives its address."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        body, read = await request.read(), False
        response = web.StreamResponse()

        async def receive() -> Any:
            nonlocal read
            if read:
                await asyncio.Event().wait()
            read = True
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                response.set_status(message["status"])
                for name, value in message["headers"]:
                    response.headers.add(name.decode(), value.decode())
                await response.prepare(request)
            else:
                await response.write(message.get("body", b""))

        await app(_scope(request), receive, send)
        return response

    server = web.Server(handle)
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


def _scope(request: web.BaseRequest) -> dict[str, Any]:
    raw = request.raw_path.partition("?")[0]
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1",
        "method": request.method, "scheme": "http", "path": request.path, "root_path": "",
        "raw_path": raw.encode(), "query_string": request.query_string.encode(),
        "headers": [(name.lower(), value) for name, value in request.raw_headers],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1),
    }  # fmt: skip
