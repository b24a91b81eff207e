"""A foreign RabbitMQ client that writes any bytes."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import ChannelFrame
from pamqp.commands import Queue
from protoflow.transports.rabbitmq import frames


def table(*fields: tuple[bytes, bytes]) -> bytes:
    """Headers: names, and values with the byte for their type before them."""
    data = b"".join(bytes((len(name),)) + name + value for name, value in fields)
    return struct.pack(">I", len(data)) + data


def text(value: bytes) -> bytes:
    """A header's value: a long string of any bytes."""
    return b"S" + struct.pack(">I", len(value)) + value


def integer(value: int) -> bytes:
    """A header's value: a signed number of eight bytes."""
    return b"l" + struct.pack(">q", value)


def array(*values: bytes) -> bytes:
    """A header's value: an array."""
    data = b"".join(values)
    return b"A" + struct.pack(">I", len(data)) + data


class RawPublisher:
    """Publishes bytes."""

    def __init__(self, channel: aiormq.Channel) -> None:
        self._channel = channel

    async def publish(
        self, exchange: str, key: str, flags: int, properties: bytes, body: bytes = b"foreign"
    ) -> None:
        """Publishes, and waits until the broker has it."""
        data = frames.content(
            self._channel.number,
            frames.route(exchange, key, False),
            flags,
            properties,
            body,
            131072,
        )
        self._channel.write_queue.put_nowait(ChannelFrame(payload=data, should_close=False))
        # What is answered was worked off after what came before.
        await self._channel.rpc(Queue.Declare(queue="", exclusive=True, auto_delete=True))


@asynccontextmanager
async def raw_publisher(url: str) -> AsyncIterator[RawPublisher]:
    """A foreign publisher."""
    connection = await aiormq.connect(url)
    channel = await connection.channel(publisher_confirms=False)
    assert isinstance(channel, aiormq.Channel)
    try:
        yield RawPublisher(channel)
    finally:
        await connection.close()
