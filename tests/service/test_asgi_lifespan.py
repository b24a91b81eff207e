"""`service.asgi_lifespan`: the service lives within the lifespan of any application."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from protoflow import Config, Service
from starlette.applications import Starlette

from tests.middleware.harness import config


class Server:
    """The lifespan of a server: it sends what a server sends, and keeps the answers."""

    def __init__(self, app: Any) -> None:
        self.answers: list[dict[str, Any]] = []
        self._inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._answered: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.task = asyncio.create_task(
            app({"type": "lifespan"}, self._inbox.get, self._answered.put)
        )

    async def ask(self, event: str) -> dict[str, Any]:
        """Sends `startup` or `shutdown`; returns the answer."""
        await self._inbox.put({"type": f"lifespan.{event}"})
        async with asyncio.timeout(10):
            return await self._answered.get()


def made(log: list[str], **settings: Any) -> Service:
    service = Service(config(**{"transport": "memory://", **settings}))
    start, stop = service.start, service.stop

    async def started() -> None:
        await start()
        log.append("service starts")

    async def stopped() -> None:
        await stop()
        log.append("service stops")

    service.start, service.stop = started, stopped  # type: ignore[method-assign]
    return service


async def test_the_service_lives_within_the_application() -> None:
    log: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        log.append("application starts")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        log.append("application stops")
        await send({"type": "lifespan.shutdown.complete"})

    service = made(log)
    server = Server(service.asgi_lifespan(app))
    assert (await server.ask("startup"))["type"] == "lifespan.startup.complete"
    assert service.health().ready
    assert (await server.ask("shutdown"))["type"] == "lifespan.shutdown.complete"
    await server.task
    assert log == ["application starts", "service starts", "service stops", "application stops"]


async def without(scope: Any, receive: Any, send: Any) -> None:
    raise ValueError(f"Django can only handle ASGI/HTTP connections, not {scope['type']}.")


async def silent(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "lifespan"


@pytest.mark.parametrize("app", [without, silent, Starlette()])
async def test_an_application_needs_no_lifespan(app: Any) -> None:
    log: list[str] = []
    service = made(log)
    server = Server(service.asgi_lifespan(app))
    assert (await server.ask("startup"))["type"] == "lifespan.startup.complete"
    assert service.health().ready
    assert (await server.ask("shutdown"))["type"] == "lifespan.shutdown.complete"
    await server.task
    assert log == ["service starts", "service stops"]


@pytest.mark.parametrize("app", [without, Starlette()])
async def test_a_service_that_cannot_start_ends_the_server_with_the_reason(app: Any) -> None:
    service = Service(Config(environ={}, transport="kafka://127.0.0.1:1", connect_timeout=0.1))
    server = Server(service.asgi_lifespan(app))
    answer = await server.ask("startup")
    assert answer["type"] == "lifespan.startup.failed"
    assert answer["message"].startswith("protoflow: ")
    server.task.cancel()


async def test_an_application_that_breaks_takes_the_service_with_it() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        raise ValueError("broken")

    service = made([])
    server = Server(service.asgi_lifespan(app))
    await server.ask("startup")
    with pytest.raises(ValueError, match="broken"):
        await server.task
    assert not service.health().ready


async def test_requests_reach_the_application() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    wrapped: Any = made([]).asgi_lifespan(app)
    await wrapped({"type": "http"}, None, None)
    await wrapped({"type": "websocket"}, None, None)
    assert seen == ["http", "websocket"]
