"""A service and clients that ask it: through aiohttp's server, and through ASGI without one."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from aiohttp import ClientSession, DummyCookieJar
from protoflow import Context, Service
from protoflow.testing import TestedService
from yarl import URL

from tests.middleware.harness import running, worker

DEAD = "work..workers..dead"
TOKEN, READ_TOKEN = "operate-ä", "read-ö"
TOKENS: dict[str, Any] = {"http_token": TOKEN, "http_read_token": READ_TOKEN}


def bearer(token: str | None) -> dict[str, str]:
    """The header of a token."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


async def broken(message: Any, _context: Context) -> None:
    """Fails for some messages."""
    if message.value.startswith("bad"):
        raise ValueError(f"no good: {message.value}")


@dataclass
class Answer:
    """What a client gets."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def type(self) -> str:
        return self.headers["content-type"].partition(";")[0]


class Client(Protocol):
    """Asks a service."""

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] = {}, body: bytes = b""
    ) -> Answer:
        """The answer to a request."""
        ...


class Aiohttp:
    """Asks over a socket."""

    def __init__(self, session: ClientSession, port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}"

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] = {}, body: bytes = b""
    ) -> Answer:
        url = URL(self._base + path, encoded=True)
        async with self._session.request(
            method, url, headers=headers, data=io.BytesIO(body)
        ) as got:
            lower = {name.lower(): value for name, value in got.headers.items()}
            return Answer(got.status, await got.text(), lower)


class ASGI:
    """Calls an ASGI application as a server on the loopback address does."""

    def __init__(self, app: Any, **scope: Any) -> None:
        self._app = app
        self._scope = scope

    async def ask(
        self, method: str, path: str, *, headers: Mapping[str, str] = {}, body: bytes = b""
    ) -> Answer:
        path, _, query = path.partition("?")
        given = {"host": "127.0.0.1:1", **{name.lower(): v for name, v in headers.items()}}
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": unquote(path), "raw_path": path.encode(), "root_path": "",
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in given.items()],
            "client": ("127.0.0.1", 2), "server": ("127.0.0.1", 1), **self._scope,
        }  # fmt: skip
        half = len(body) // 2
        incoming = [
            {"type": "http.request", "body": body[:half], "more_body": True},
            {"type": "http.request", "body": body[half:]},
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            if not incoming:
                await asyncio.Event().wait()
            return incoming.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        start, *parts = sent
        assert start["type"] == "http.response.start"
        assert [part.get("more_body", False) for part in parts] == [True] * (len(parts) - 1) + [
            False
        ]
        return Answer(
            start["status"],
            b"".join(part["body"] for part in parts).decode(),
            {name.decode(): value.decode() for name, value in start["headers"]},
        )


ADAPTERS = ("aiohttp", "asgi")


@asynccontextmanager
async def served(
    adapter: str, *, do: Any = broken, **settings: Any
) -> AsyncIterator[tuple[TestedService, Client]]:
    """A running service, and a client that asks it through an adapter."""
    async with (
        running(worker(do), virtual_time=False, **settings) as service,
        client_of(service.service, adapter) as client,
    ):
        yield service, client


@asynccontextmanager
async def client_of(service: Service, adapter: str) -> AsyncIterator[Client]:
    """A client that asks a service through an adapter."""
    if adapter == "asgi":
        yield ASGI(service.asgi_app())
        return
    port = await service.start_web_ui(0)
    async with ClientSession(cookie_jar=DummyCookieJar()) as session:
        yield Aiohttp(session, port)
