"""What is received: frames of protobuf messages are taken off, other payloads stay as they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from protoflow import Config, Message, Service
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
