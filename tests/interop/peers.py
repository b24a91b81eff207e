"""Plain clients of the brokers, as people use them who never heard of Protoflow.

A peer knows only what docs/wire.md says: where a topic lies, and how CloudEvents' binding
names attributes there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import aio_pika
import nats
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from protoflow.transports.nats.names import tokens

PATIENCE = 30.0


@dataclass(frozen=True, kw_only=True)
class Raw:
    """A message as the client of the broker shows it."""

    body: bytes
    headers: dict[str, Any]
    key: bytes | None = None
    properties: Any = None


class Watch:
    """What is published to a topic, in order."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Raw] = asyncio.Queue()

    def put(self, raw: Raw) -> None:
        self._queue.put_nowait(raw)

    async def take(self) -> Raw:
        async with asyncio.timeout(PATIENCE):
            return await self._queue.get()


@dataclass(frozen=True, kw_only=True)
class Posted:
    """A message to publish: attributes of CloudEvents by their own names, other headers."""

    body: bytes
    attributes: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str | None = None


class Peer(Protocol):
    """One broker."""

    name: str
    prefix: str

    @property
    def content_type(self) -> str | None: ...

    async def publish(self, topic: str, posted: Posted) -> None: ...

    def watch(self, topic: str) -> Any:
        """A context with a Watch; of topics that exist."""


def _headers(peer: Peer, posted: Posted) -> dict[str, Any]:
    headers = {peer.prefix + name: value for name, value in posted.attributes.items()}
    return {**headers, **posted.headers}


class KafkaPeer:
    name = "kafka"
    prefix = "ce_"
    content_type = "content-type"

    def __init__(self, url: str) -> None:
        self.address = urlsplit(url).netloc
        self._producer: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[KafkaPeer]:
        self._producer = AIOKafkaProducer(bootstrap_servers=self.address)
        await self._producer.start()
        try:
            yield self
        finally:
            await self._producer.stop()

    async def publish(self, topic: str, posted: Posted) -> None:
        headers = _headers(self, posted)
        if posted.content_type is not None:
            headers["content-type"] = posted.content_type
        native = [
            (name, value if isinstance(value, bytes) else value.encode())
            for name, value in headers.items()
        ]
        await self._producer.send_and_wait(topic, posted.body, headers=native)

    @asynccontextmanager
    async def watch(self, topic: str) -> AsyncIterator[Watch]:
        watch = Watch()
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.address, auto_offset_reset="earliest"
        )
        await consumer.start()

        async def read() -> None:
            async for record in consumer:
                headers = {name: value.decode() for name, value in record.headers}
                watch.put(Raw(body=record.value, headers=headers, key=record.key))

        reading = asyncio.create_task(read())
        try:
            yield watch
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await consumer.stop()


class RabbitPeer:
    name = "rabbitmq"
    prefix = "cloudEvents_"
    content_type = None  # a property

    def __init__(self, url: str) -> None:
        self.address = url
        self.channel: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[RabbitPeer]:
        connection = await aio_pika.connect(self.address)
        async with connection:
            self.channel = await connection.channel()
            yield self

    async def publish(self, topic: str, posted: Posted) -> None:
        message = aio_pika.Message(
            posted.body, headers=_headers(self, posted), content_type=posted.content_type
        )
        await (await self._exchange()).publish(message, routing_key=topic, mandatory=True)

    @asynccontextmanager
    async def watch(self, topic: str) -> AsyncIterator[Watch]:
        watch = Watch()
        queue = await self.channel.declare_queue(exclusive=True)
        await queue.bind(await self._exchange(), topic)

        async def read(message: Any) -> None:
            watch.put(Raw(body=message.body, headers=message.headers, properties=message))

        tag = await queue.consume(read, no_ack=True)
        yield watch
        await queue.cancel(tag)
        await queue.delete(if_unused=False, if_empty=False)

    async def _exchange(self) -> Any:
        return await self.channel.declare_exchange("protoflow", "topic", durable=True)


class NatsPeer:
    name = "nats"
    prefix = "ce-"
    content_type = "ce-datacontenttype"

    def __init__(self, url: str) -> None:
        self.address = f"nats://{urlsplit(url).netloc}"
        self.client: Any = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[NatsPeer]:
        self.client = await nats.connect(self.address)
        try:
            yield self
        finally:
            await self.client.close()

    async def publish(self, topic: str, posted: Posted) -> None:
        await self.client.publish(tokens(topic), posted.body, headers=self._native(posted))
        await self.client.flush()

    @asynccontextmanager
    async def watch(self, topic: str) -> AsyncIterator[Watch]:
        watch = Watch()

        async def read(message: Any) -> None:
            watch.put(Raw(body=message.data, headers=dict(message.headers or {})))

        subscription = await self._subscribe(topic, read)
        # Twice: nats-py's first ping overtakes what it has not written yet.
        await self.client.flush()
        await self.client.flush()
        yield watch
        await subscription.unsubscribe()

    async def _subscribe(self, topic: str, read: Any) -> Any:
        return await self.client.subscribe(tokens(topic), cb=read)

    def _native(self, posted: Posted) -> dict[str, str] | None:
        headers = _headers(self, posted)
        if posted.content_type is not None:
            structured = posted.content_type.lower().startswith("application/cloudevents")
            headers["Content-Type" if structured else self.content_type] = posted.content_type
        return headers or None


class JetStreamPeer(NatsPeer):
    name = "jetstream"

    async def publish(self, topic: str, posted: Posted) -> None:
        await self.client.jetstream().publish(
            f"protoflow.{tokens(topic)}", posted.body, headers=self._native(posted)
        )

    async def _subscribe(self, topic: str, read: Any) -> Any:
        return await self.client.jetstream().subscribe(f"protoflow.{tokens(topic)}", cb=read)


PEERS: dict[str, Any] = {
    peer.name: peer for peer in (KafkaPeer, RabbitPeer, NatsPeer, JetStreamPeer)
}
