"""A service that consumes from Kafka and publishes to JetStream and SQLite, through outages."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from protoflow import Config, Context, Message, Service
from protoflow.contract.spec import DeliveryPolicy, Ordering, RetryPolicy
from protoflow.errors import CapabilityError

from tests.brokers import url_or_skip
from tests.faults.proxy import FaultProxy

ORDERED = DeliveryPolicy(
    ordering=Ordering.PER_KEY, retry=RetryPolicy(max_attempts=2, initial_backoff=0.01)
)
KEYS = "abcdefgh"


class Shop:
    """Orders on Kafka; those of the keys a to d go on to SQLite, the others to JetStream."""

    def __init__(self, kafka: str, jetstream: str, directory: Path) -> None:
        self.settings: dict[str, Any] = {
            "transport": kafka,
            "transports": {
                "queue": f"sqlite:///{directory}/queue.db",
                "stream": {"url": jetstream, "reconnect_wait": 0.1},
            },
            "topics": {"fast": {"transport": "queue"}, "slow": {"transport": "stream"}},
            "namespace": f"t{uuid.uuid4().hex[:8]}",
            "shutdown_timeout": 4.0,
            "lease": 5.0,  # which the first service leaves behind, if it stops in the outage
            "environ": {},
        }
        self.handled: dict[str, dict[bytes, list[int]]] = defaultdict(lambda: defaultdict(list))
        self.broken = False

    async def forward(self, message: Message, _context: Context) -> Message:
        if self.broken:
            raise ValueError("broken")
        assert message.key is not None
        topic = "fast" if message.key in b"abcd" else "slow"
        name = f"{self.settings['namespace']}..{topic}"
        return Message(id=f"{message.id}-out", topic=name, payload=message.payload, key=message.key)

    def arrive(self, topic: str) -> Callable[[Message, Context], Any]:
        async def handle(message: Message, _context: Context) -> None:
            assert message.key is not None
            assert message.payload is not None
            self.handled[topic][message.key].append(int(message.payload))

        return handle

    def service(self, **settings: Any) -> Service:
        service = Service(Config(**{**self.settings, **settings}))
        service.register_message_handler("forward", "orders", self.forward, delivery=ORDERED)
        for topic in ("fast", "slow"):
            handler = self.arrive(topic)
            service.register_message_handler(topic, topic, handler, delivery=ORDERED)
        return service

    async def publish(self, service: Service, numbers: range) -> None:
        topic = f"{self.settings['namespace']}..orders"
        await service.publish(
            *(
                Message(id=f"{key}{n}", topic=topic, payload=b"%d" % n, key=key.encode())
                for n in numbers
                for key in KEYS
            )
        )

    async def arrived(self, topic: str, until: int) -> None:
        """Waits for all numbers of all keys; each key in order, repetitions aside."""
        keys = KEYS[:4] if topic == "fast" else KEYS[4:]
        async with asyncio.timeout(60):
            while any(set(self.handled[topic][key.encode()]) != set(range(until)) for key in keys):
                await asyncio.sleep(0.02)
        for key in keys:
            firsts = list(dict.fromkeys(self.handled[topic][key.encode()]))
            assert firsts == list(range(until))


async def until(true: Callable[[], Any], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.05)


@pytest.fixture
async def stream() -> AsyncIterator[FaultProxy]:
    async with FaultProxy.to(url_or_skip("jetstream")) as proxy:
        yield proxy


@pytest.fixture
def shop(stream: FaultProxy, tmp_path: Path) -> Shop:
    return Shop(url_or_skip("kafka"), stream.url, tmp_path)


async def test_an_outage_of_one_transport_leaves_the_others_working(
    shop: Shop, stream: FaultProxy
) -> None:
    async with shop.service() as service:
        await shop.publish(service, range(3))
        await shop.arrived("fast", 3)
        await shop.arrived("slow", 3)
        stream.cut()
        await shop.publish(service, range(3, 8))
        await shop.arrived("fast", 8)
        await until(lambda: "transport stream" in service.health().problems)
        assert "transport default" not in service.health().problems
        assert "transport queue" not in service.health().problems
        await service.reporter.refresh()
        assert service.reporter.lag["..".join((shop.settings["namespace"], "fast/")) + (
            f"{shop.settings['namespace']}..fast"
        )].messages == 0  # fmt: skip
        stream.restore()
        await shop.arrived("slow", 8)
        await until(lambda: service.health().ready)


async def test_a_restart_during_an_outage_loses_nothing(shop: Shop, stream: FaultProxy) -> None:
    async with shop.service() as service:
        await shop.publish(service, range(2))
        await shop.arrived("slow", 2)
        stream.cut()
        await shop.publish(service, range(2, 5))
        await shop.arrived("fast", 5)
    stream.restore()
    async with shop.service() as service:
        await shop.arrived("slow", 5)
        await shop.publish(service, range(5, 6))
        await shop.arrived("fast", 6)
        await shop.arrived("slow", 6)


async def test_dead_letters_stay_on_the_transport_of_their_message(shop: Shop) -> None:
    shop.broken = True
    async with shop.service() as service:
        await shop.publish(service, range(1))
        topic = next(one for one in service.dead_letters.topics if "orders" in one)
        async with asyncio.timeout(30):
            while await service.dead_letters.count(topic) < len(KEYS):
                await asyncio.sleep(0.1)
        parts = service.transport.parts  # type: ignore[attr-defined]
        assert await parts["default"].dead_letters.count(topic) == len(KEYS)
        shop.broken = False
        assert await service.dead_letters.replay(topic) == len(KEYS)
        await shop.arrived("fast", 1)
        await shop.arrived("slow", 1)


async def test_atomic_over_two_transports_stops_the_start(shop: Shop) -> None:
    service = Service(Config(**shop.settings))

    async def convert(value: Any, _context: Context) -> Any:
        return value

    service.register_json_handler(
        "convert", "orders", convert, publish_topic="slow", delivery=DeliveryPolicy(atomic=True)
    )
    with pytest.raises(CapabilityError, match=r"from default and publishes .*slow to stream"):
        await service.start()
