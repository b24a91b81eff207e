"""The reporter on several transports: each topic with the broker that its messages are sent to."""

from __future__ import annotations

from pathlib import Path

from protoflow import Config, Context, Message, Service


async def test_the_system_of_a_topic_is_that_of_the_broker_it_is_sent_to(tmp_path: Path) -> None:
    config = Config(
        environ={}, transport="memory://", transports={"queue": f"sqlite:///{tmp_path}/queue.db"},
        groups={"ship": {"transport": "queue"}},
    )  # fmt: skip
    service = Service(config)

    async def handle(_message: Message, _context: Context) -> None: ...

    service.register_message_handler("ship", "orders", handle)
    async with service:
        await service.publish(Message(id="1", topic="orders", payload=b""))
        assert service.counters.sent.by_topic() == {"orders": 1}
        assert service.reporter.system_with("orders") == "memory"
        assert service.reporter.system_with("orders..ship..dead") == "sqlite"
