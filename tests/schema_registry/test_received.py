"""What is received: frames of protobuf messages are taken off, other payloads stay as they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from protoflow import Config, Message, Service
from protoflow.codecs.framing import Frame
from protoflow.schema_registry.frame_reader import FrameReader
from protoflow.schema_registry.registry import SchemaRegistry

from tests.schema_registry.fake import FakeRegistry

AVRO = b"\0\0\0\0\x07avro"
BINARY = b"\1" + bytes(range(40))


def settings(url: str, **options: Any) -> Config:
    return Config(transport="memory://", environ={}, schema_registry={"url": url, **options})


async def test_handlers_without_a_contract_get_payloads_as_they_are() -> None:
    seen: list[bytes | None] = []

    async def keep(message: Message, _context: Any) -> None:
        seen.append(message.payload)

    async with FakeRegistry().serving() as fake:
        service = Service(settings(fake.url))
        service.register_message_handler("keep", "files", keep)
        async with service:
            for payload in (AVRO, BINARY):
                await service.publish(Message(id="1", topic="files", payload=payload))
            async with asyncio.timeout(30):
                while service.stats()["keep"].handled < 2:
                    await asyncio.sleep(0.01)
        assert seen == [AVRO, BINARY]
        assert not fake.requests


@pytest.mark.parametrize("content_type", ["image/png", "avro/binary", "application/cloudevents"])
def test_payloads_of_other_formats_have_no_frame(content_type: str) -> None:
    registry = SchemaRegistry(settings("http://nowhere"), lambda: 0.5)
    metadata = {"content-type": content_type, "ce_type": "a.B"}
    message = Message(id="1", topic="t", payload=b"\0\0\0\0\x07\0abc", metadata=metadata)
    assert FrameReader(registry, {}).opened(message) is message
    metadata["content-type"] = "application/x-protobuf; proto=a.B"
    opened = FrameReader(registry, {}).opened(message)
    assert isinstance(opened, Message)
    assert opened.payload == b"abc"


async def test_a_frame_of_an_unhandled_type_lets_the_next_message_of_its_key_run(pb2: Any) -> None:
    """The registry names the type only while the message already holds its lane."""
    seen: list[Any] = []
    text = 'syntax = "proto3"; package registry.v1; message Other {} message OrderBilled {}'

    async def bill(order: Any, _context: Any) -> None:
        seen.append(order)

    async with FakeRegistry().serving() as fake:
        fake.schemas.append((text, ""))
        service = Service(settings(fake.url))
        service.register_proto_handler("bill", "orders", pb2.OrderBilled, bill)
        async with service:
            for index, id in enumerate("789"):
                order = pb2.OrderBilled(order_id=id)
                payload = bytes(Frame(1, (min(index, 1),))) + order.SerializeToString()
                message = Message(id=id, topic="orders", payload=payload, key=b"one")
                await service.publish(message)
            async with asyncio.timeout(30):
                while len(seen) < 2:
                    await asyncio.sleep(0.01)
            stats = service.stats()["bill"]
        assert [order.order_id for order in seen] == ["8", "9"]
        assert (stats.dead_lettered, stats.failed_runs, stats.retried) == (0, 0, 0)
        assert fake.requests == ["GET /schemas/ids/1", "GET /schemas/ids/1"]
