"""Processes of a namespace learn of each other where the settings ask for it."""

from __future__ import annotations

import asyncio
import dataclasses
import uuid
from pathlib import Path

import pytest
from protoflow import Config, Service
from protoflow.errors import CapabilityError
from protoflow.web.api.live import taken

from tests.acceptance.targets import TARGETS
from tests.middleware.harness import NAME, nothing, worker
from tests.web.test_routes import validate


def service_at(url: str, namespace: str) -> Service:
    settings = Config(environ={}, transport=url, namespace=namespace, http_processes=True)
    service = Service(settings)
    service.register(worker(nothing))
    return service


@pytest.mark.parametrize("name", ["memory", "sqlite", "kafka"])
async def test_processes_see_each_other(name: str, tmp_path: Path) -> None:
    url = TARGETS[name].fresh_url(tmp_path)
    assert url is not None
    namespace = f"n{uuid.uuid4().hex[:8]}"
    async with service_at(url, namespace) as one, service_at(url, namespace):
        host = one._inspection.host
        strange = b'{"name": "z", "latency_seconds": {}, "run_seconds": 0, "runs": 0}'
        assert host.neighbours is not None
        for payload in (
            b"{",
            b'{"name": "x", "processes": [1], "handlers": []}',
            b'{"name": "y", "processes": [], "handlers": [%s]}' % strange,
            b'{"name": "w", "processes": [{"name": "w", "ready": true}], "handlers": []}',
            b'{"name": "v", "processes": "all", "handlers": []}',
        ):
            host.neighbours._take(payload)
        assert not host.neighbours.beats
        async with asyncio.timeout(60):
            while len((found := await taken(host))["processes"]) < 2:
                await asyncio.sleep(0.1)
        validate(found, "Snapshot")
        (row,) = found["handlers"]
        assert row["name"] == NAME
        limit = one.subscriptions[0].settings.max_in_flight
        assert row["in_flight_limit"] == 2 * limit
        assert found["processes"][1]["seen_at"]


async def test_a_broker_without_broadcast_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    service = service_at("memory://refuses", "n")
    less = dataclasses.replace(service.capabilities, broadcast=False)
    monkeypatch.setattr(service.transport, "capabilities", less)
    with pytest.raises(CapabilityError, match="http_processes: memory has no broadcast"):
        await service.start()


async def test_without_the_option_nothing_is_sent() -> None:
    async with Service(Config(environ={}, transport="memory://quiet")) as service:
        assert service._inspection._host is None
