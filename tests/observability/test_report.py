"""The reporter on several transports: each topic with the broker that its messages are sent to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config, Context, Message, Service


@pytest.fixture
def service(tmp_path: Path) -> Service:
    """A service whose group `ship` is on another transport than its topic."""
    config = Config(
        environ={}, transport="memory://", transports={"queue": f"sqlite:///{tmp_path}/queue.db"},
        groups={"ship": {"transport": "queue"}},
    )  # fmt: skip
    service = Service(config)

    async def handle(_message: Message, _context: Context) -> None: ...

    service.register_message_handler("ship", "orders", handle)
    service.register_message_handler("bill", "orders", handle)
    return service


async def test_the_system_of_a_topic_is_that_of_the_broker_it_is_sent_to(service: Service) -> None:
    async with service:
        await service.publish(Message(id="1", topic="orders", payload=b""))
        assert service.counters.sent.by_topic() == {"orders": 1}
        assert service.reporter.system_with("orders") == "memory"
        assert service.reporter.system_with("orders..ship..dead") == "sqlite"


async def test_a_transport_that_does_not_answer_delays_no_lag_of_the_others(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service:
        transport: Any = service.transport

        async def silent(_topic: str, _group: str) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(transport.parts["default"], "lag", silent)
        refreshing = asyncio.create_task(service.reporter.refresh())
        async with asyncio.timeout(10):
            while "orders/ship" not in service.reporter.lag:
                await asyncio.sleep(0.01)
        assert not refreshing.done()
        refreshing.cancel()
        await asyncio.wait([refreshing])
