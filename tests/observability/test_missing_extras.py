"""A missing extra is named with the command that installs it, only when it is needed."""

from __future__ import annotations

import sys

import pytest
from protoflow import Service
from protoflow.errors import MissingExtraError

from tests.middleware.harness import config, nothing, worker
from tests.web.clients import ASGI
from tests.web.test_web import Client, free_port


def hide(monkeypatch: pytest.MonkeyPatch, module: str, *ours: str) -> None:
    """As if it were not installed."""
    for name in list(sys.modules):
        if name == module or name.startswith(f"{module}."):
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, module, None)
    for name in list(sys.modules):
        if name.startswith(ours):
            monkeypatch.delitem(sys.modules, name)


async def test_pages_need_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "aiohttp", "protoflow.web")
    service = Service(config(http_port=free_port()))
    service.register(worker(nothing))
    with pytest.raises(MissingExtraError, match=r"pip install 'protoc-gen-protoflow\[http\]'"):
        await service.start()


async def test_mounted_pages_do_without_aiohttp(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "aiohttp", "protoflow.web")
    service = Service(config())
    service.register(worker(nothing))
    async with service:
        assert (await ASGI(service.asgi_app()).ask("GET", "/api/v1/handlers")).status == 200


async def test_a_port_for_metrics_needs_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "prometheus_client", "protoflow.observability.prometheus")
    service = Service(config(metrics_port=free_port()))
    service.register(worker(nothing))
    with pytest.raises(MissingExtraError, match=r"\[metrics\]"):
        await service.start()


async def test_other_pages_do_without_prometheus(monkeypatch: pytest.MonkeyPatch) -> None:
    from aiohttp import ClientSession

    hide(monkeypatch, "prometheus_client", "protoflow.observability.prometheus")
    service = Service(config())
    service.register(worker(nothing))
    async with service, ClientSession() as session:
        client = Client(session, await service.start_web_ui(0))
        assert await client.get("/api/handlers")
        status, body, _ = await client.ask("GET", "/metrics")
    assert status == 501
    assert "[metrics]" in body["detail"]
