"""What the tests of the HTTP transport work with: a service, and requests on real sockets."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Config, Context, Service
from protoflow.contract.spec import DeliveryPolicy
from protoflow.output import Output
from protoflow.testing.transports.tasks import POLICY, publication, task_handler

from tests.brokers.base import free_port

LOOPBACK = ["127.0.0.0/8", "::1/128"]
SECRET = "whsec_" + base64.b64encode(b"the first secret, 24 bytes").decode()
OTHER = "whsec_" + base64.b64encode(b"the other secret, 24 bytes").decode()
TYPE = StringValue.DESCRIPTOR.full_name


class Runs:
    """A handler that notes its runs; a task `bad` fails, a task `slow` waits for `release`."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.done: list[str] = []
        self.contexts: list[Context] = []
        self.cancelled = 0
        self.started = asyncio.Event()
        self.release = asyncio.Event()

    async def work(self, task: StringValue, context: Context) -> None:
        self.seen.append(task.value)
        self.contexts.append(context)
        self.started.set()
        if task.value == "bad":
            raise ValueError("on purpose, with the secret 4711")
        if task.value == "slow":
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
        self.done.append(task.value)


class Lab:
    """A port, and what listens and sends there."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.client: aiohttp.ClientSession

    def config(self, url: str | None = None, **options: Any) -> Config:
        return Config(
            environ={}, transport=url or self.url, handle_signals=False, shutdown_timeout=5.0,
            transport_options={"allowed_networks": LOOPBACK, **options},
        )  # fmt: skip

    @asynccontextmanager
    async def receiving(
        self, work: Callable[..., Awaitable[Any]], *, topic: str = "orders",
        groups: tuple[str, ...] = ("billing",), policy: DeliveryPolicy = POLICY,
        url: str | None = None, results: str | None = None, **options: Any,
    ) -> AsyncIterator[Service]:  # fmt: skip
        service = Service(self.config(url, **options))
        for group in groups:
            service.register(task_handler(work, topic, group, policy, results))
        async with service:
            yield service

    async def post(
        self, body: bytes | str, path: str = "/orders", **headers: str
    ) -> tuple[int, Mapping[str, str], str]:
        """Sends a request; by default JSON, without CloudEvents. `_` in a name stands for `-`."""
        sent = {"content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.client.post(self.url + path, data=body, headers=sent) as response:
            return response.status, response.headers, await response.text()


@pytest.fixture
async def lab() -> AsyncIterator[Lab]:
    lab = Lab()
    async with aiohttp.ClientSession() as lab.client:
        yield lab


class Subscriber:
    """A stranger's endpoint. `answers` are its next answers, then 204."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hooks"
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[web.StreamResponse] = []
        self.delay = 0.0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers, await request.read()))
        await asyncio.sleep(self.delay)
        return self.answers.pop(0) if self.answers else web.Response(status=204)


@pytest.fixture
async def subscriber() -> AsyncIterator[Subscriber]:
    subscriber = Subscriber()
    await subscriber.start()
    yield subscriber
    await subscriber.stop()


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Waits until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def task(value: str, **fields: Any) -> Output[StringValue]:
    return Output(StringValue(value=value), **fields)


ORDERS = publication("orders")
