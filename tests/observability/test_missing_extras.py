"""A missing extra is named with the command that installs it, only when it is needed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
from protoflow import Service
from protoflow.errors import MissingExtraError

from tests.middleware.harness import config, nothing, worker
from tests.web.clients import ASGI
from tests.web.test_web import Client, free_port

Hide = Callable[..., None]


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hide]:
    """Makes a module seem not to be installed, for modules of ours that are loaded again.

    What the test loads again is forgotten: its classes are others than those of the same name.
    """
    before = dict(sys.modules)
    again: list[str] = []

    def hide(module: str, *ours: str) -> None:
        again.extend(ours)
        for name in list(sys.modules):
            if name == module or name.startswith(f"{module}."):
                monkeypatch.setitem(sys.modules, name, None)
        monkeypatch.setitem(sys.modules, module, None)
        for name in list(sys.modules):
            if name.startswith(ours):
                monkeypatch.delitem(sys.modules, name)

    yield hide
    for name in list(sys.modules):
        if name.startswith(tuple(again)) and sys.modules[name] is not before.get(name):
            del sys.modules[name]
    for name in again:
        parent, _, child = name.rpartition(".")
        if name in before:
            setattr(sys.modules[parent], child, before[name])


async def test_pages_need_aiohttp(hide: Hide) -> None:
    hide("aiohttp", "protoflow.web")
    service = Service(config(http_port=free_port()))
    service.register(worker(nothing))
    with pytest.raises(MissingExtraError, match=r"pip install 'protoc-gen-protoflow\[http\]'"):
        await service.start()


async def test_mounted_pages_do_without_aiohttp(hide: Hide) -> None:
    hide("aiohttp", "protoflow.web")
    service = Service(config())
    service.register(worker(nothing))
    async with service:
        assert (await ASGI(service.asgi_app()).ask("GET", "/api/v1/handlers")).status == 200


async def test_a_port_for_metrics_needs_prometheus(hide: Hide) -> None:
    hide("prometheus_client", "protoflow.observability.prometheus")
    service = Service(config(metrics_port=free_port()))
    service.register(worker(nothing))
    with pytest.raises(MissingExtraError, match=r"\[metrics\]"):
        await service.start()


async def test_other_pages_do_without_prometheus(hide: Hide) -> None:
    from aiohttp import ClientSession

    hide("prometheus_client", "protoflow.observability.prometheus")
    service = Service(config())
    service.register(worker(nothing))
    async with service, ClientSession() as session:
        client = Client(session, await service.start_web_ui(0))
        assert await client.get("/api/handlers")
        status, body, _ = await client.ask("GET", "/metrics")
    assert status == 501
    assert "[metrics]" in body["detail"]
