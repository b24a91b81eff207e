"""The receiver in an application of FastAPI, by uvicorn on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from protoflow.http_server import bodies
from protoflow.transports import http

from tests.transports.http.conftest import SECRET, Lab, Runs, until
from tests.transports.http.test_receiving import signed


@asynccontextmanager
async def mounted(lab: Lab) -> AsyncIterator[None]:
    api = FastAPI()
    api.mount("/hooks", http.app)
    config = uvicorn.Config(api, host="127.0.0.1", port=lab.port, log_level="error")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server._serve())
    await until(lambda: server.started)
    try:
        yield
    finally:
        server.should_exit = True
        await serving


async def test_an_application_passes_its_requests_on(lab: Lab) -> None:
    runs = Runs()
    async with mounted(lab):
        assert (await lab.post('"early"', "/hooks/orders"))[0] == 503
        async with lab.receiving(runs.work, url="http://", secrets=[SECRET]):
            body = '"mounted"'
            assert (await lab.post(body, "/hooks/orders", **signed(body)))[0] == 204
            assert (await lab.post(body, "/hooks/orders"))[0] == 401
            assert (await lab.post('"bad"', "/hooks/orders", **signed('"bad"')))[0] == 500
            async with lab.client.options(f"{lab.url}/hooks/orders") as response:
                assert response.status == 204
        assert (await lab.post(body, "/hooks/orders", **signed(body)))[0] == 503
    assert runs.done == ["mounted"]


async def test_a_sender_that_disconnects_cancels_its_message(lab: Lab) -> None:
    runs = Runs()
    async with mounted(lab), lab.receiving(runs.work, url="http://", allow_unsigned=True):
        asking = asyncio.create_task(lab.post('"slow"', "/hooks/orders"))
        await runs.started.wait()
        asking.cancel()
        await until(lambda: runs.cancelled)
        assert (await lab.post('"after"', "/hooks/orders"))[0] == 204


async def test_the_body_has_the_same_limits(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "PATIENCE", 0.2)
    options: dict[str, Any] = {"allow_unsigned": True, "max_message_bytes": 100}
    async with mounted(lab), lab.receiving(Runs().work, url="http://", **options):
        assert (await lab.post(bytes(101), "/hooks/orders"))[0] == 413
        reader, writer = await asyncio.open_connection("127.0.0.1", lab.port)
        writer.write(b"POST /hooks/orders HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nx")
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
