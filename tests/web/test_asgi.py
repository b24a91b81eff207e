"""The pages as an ASGI application: mounted in FastAPI, and alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI
from protoflow import Service
from protoflow.errors import RegistrationError
from protoflow.http_server import bodies
from protoflow.message import Message
from protoflow.web import application, response

from tests.middleware.harness import NAME, config, nothing, put, running, worker
from tests.web.clients import ASGI, DEAD, bearer, broken


async def test_mounted_in_fastapi() -> None:
    service = Service(config(http_token="x"))
    service.register(worker(nothing))

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        async with service:
            yield

    app = FastAPI(lifespan=lifespan)
    app.mount("/events", service.asgi_app())

    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        # Before the lifespan there is no broker to be asked.
        answer = await client.get("/events/api/v1/handlers", headers=bearer("x"))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await client.get("/events/healthz")).status_code == 200
        assert (await client.get("/events/readyz")).status_code == 503
        async with app.router.lifespan_context(app):
            assert (await client.get("/hello")).json() == "hello"
            assert (await client.get("/events/readyz")).json() == {"status": "ok"}
            assert (await client.get("/events/api/v1/handlers")).status_code == 401
            answer = await client.get("/events/api/v1/handlers", headers=bearer("x"))
            assert answer.json()["handlers"][0]["name"] == NAME
            answer = await client.post("/events/api/v1/pause", headers=bearer("x"))
            assert answer.json()["processes"][0]["subscriptions"][0]["state"] == "paused"
            forged = Message(id="a/b", topic=DEAD, payload=b"", metadata={})
            assert await service.transport.submit([forged]) == [None]
            path = "/events/api/v1/dead-letters/a%2Fb"
            assert (await client.get(path, headers=bearer("x"))).json()["id"] == "a/b"
            answer = await client.get("/events/nowhere", headers=bearer("x"))
            assert answer.headers["content-type"] == "application/problem+json"


async def test_mounting_refuses_handlers_of_aiohttp_and_the_other_way_round() -> None:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response()

    service = Service(config())
    service.register_http_handler("/hello", hello)
    with pytest.raises(RegistrationError, match="GET /hello: register_http_handler takes handlers"):
        service.asgi_app()
    mounted = Service(config())
    mounted.asgi_app()
    with pytest.raises(RegistrationError, match="add the page to it"):
        mounted.register_http_handler("/hello", hello)


@pytest.mark.parametrize(
    ("server", "client", "expected"),
    [
        (("127.0.0.1", 80), ("127.0.0.1", 9), 200),
        (("::1", 80), ("::1", 9), 200),
        (("127.0.0.1", 80), None, 200),
        (("10.0.0.5", 80), ("127.0.0.1", 9), 403),
        (("127.0.0.1", 80), ("10.0.0.9", 9), 403),  # a proxy that names its client
        (("/run/app.sock", None), None, 403),
        (None, None, 403),
    ],
)
async def test_without_a_token_only_this_machine_is_served(
    server: Any, client: Any, expected: int
) -> None:
    async with running(worker(nothing), virtual_time=False) as service:
        asked = ASGI(service.service.asgi_app(), server=server, client=client)
        assert (await asked.ask("GET", "/api/v1/handlers")).status == expected
        assert (await asked.ask("GET", "/healthz")).status == 200


async def test_the_mount_is_not_part_of_the_path() -> None:
    async with running(worker(nothing), virtual_time=False) as service:
        app = service.service.asgi_app()
        for scope in (
            {"path": "/in/healthz", "raw_path": b"/in/healthz", "root_path": "/in"},
            {"path": "/in/healthz", "raw_path": None, "root_path": "/in/"},
            {"path": "/healthz", "raw_path": b"/healthz", "root_path": "/in"},
            {"path": "/a b/healthz", "raw_path": b"/a%20b/healthz", "root_path": "/a b"},
        ):
            assert (await ASGI(app, **scope).ask("GET", "/")).status == 200, scope
        scope = {"path": "/inner", "raw_path": b"/inner", "root_path": "/in"}
        assert (await ASGI(app, **scope).ask("GET", "/")).status == 404


async def test_other_protocols() -> None:
    app = Service(config()).asgi_app()
    sent: list[Any] = []
    incoming = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Any:
        return incoming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    with pytest.raises(RuntimeError, match="websocket"):
        await app({"type": "websocket"}, receive, send)


async def test_a_body_that_does_not_come_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.05)
    async with running(worker(nothing), virtual_time=False) as service:
        app = service.service.asgi_app()
        scope = {
            "type": "http", "method": "POST", "path": "/api/v1/dead-letters/purge",
            "headers": [(b"host", b"localhost")], "server": ("127.0.0.1", 1),
        }  # fmt: skip
        statuses = []
        for message in (None, {"type": "http.disconnect"}):

            async def receive(message: Any = message) -> Any:
                return message or await asyncio.Event().wait()

            sent: list[Any] = []

            async def send(message: Any, sent: list[Any] = sent) -> None:
                sent.append(message)

            await app(scope, receive, send)
            statuses.append(json.loads(sent[1]["body"])["status"])
        assert statuses == [408, 400]


async def test_a_client_that_takes_nothing_gives_its_place_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(response, "TAKING", 0.05)
    monkeypatch.setattr(application, "_AT_ONCE", 1)
    async with running(worker(broken), virtual_time=False) as service:
        await put(service, "bad")
        app = service.service.asgi_app()
        scope = {
            "type": "http", "method": "GET", "path": "/api/v1/dead-letters/export",
            "headers": [(b"host", b"localhost")], "server": ("127.0.0.1", 1),
        }  # fmt: skip

        async def send(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            await app(scope, lambda: asyncio.sleep(0, {}), send)
        assert (await ASGI(app).ask("GET", "/api/v1/handlers")).status == 200
