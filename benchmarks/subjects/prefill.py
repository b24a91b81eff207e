"""Fills topics, queues and streams with the raw clients, for raw and FastStream subjects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.subjects.messages import order
from benchmarks.subjects.options import Options

#: Confirmations waited for at once.
WINDOW = 500
#: The payload of the message of that number.
Body = Callable[[int], bytes]


def proto_body(number: int) -> bytes:
    """An order as protobuf."""
    from bench.v1.orders_pb2 import Order

    return Order(**order(number)).SerializeToString()


async def kafka(chosen: Options, topics: list[str], body: Body, headers: Mapping[str, str]) -> None:
    """Makes topics and fills the first; keys as ours, so that partitions are filled alike."""
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=chosen.address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, chosen.partitions, 1) for topic in topics])
    finally:
        await admin.close()
    if chosen.shape == "latency":
        return
    pairs = [(name, value.encode()) for name, value in headers.items()]
    async with AIOKafkaProducer(bootstrap_servers=chosen.address, linger_ms=5) as producer:
        sent = [
            await producer.send(
                topics[0], body(n), key=order(n)["order_id"].encode(), headers=pairs
            )
            for n in range(chosen.total)
        ]
        await asyncio.gather(*sent)


@asynccontextmanager
async def rabbitmq(
    chosen: Options, name: str, body: Body, headers: Mapping[str, str], kind: str
) -> AsyncIterator[Any]:
    """A connection, with a quorum queue that is filled, and deleted on leaving."""
    import aio_pika

    async with await aio_pika.connect(chosen.url) as connection:
        channel = await connection.channel()
        arguments: Any = {"x-queue-type": "quorum"}
        await channel.declare_queue(name, durable=True, arguments=arguments)
        try:
            if chosen.shape != "latency":
                for start in range(0, chosen.total, WINDOW):
                    await asyncio.gather(
                        *(
                            channel.default_exchange.publish(
                                aio_pika.Message(body(n), headers=dict(headers), content_type=kind),
                                name,
                            )
                            for n in range(start, min(start + WINDOW, chosen.total))
                        )
                    )
            yield connection
        finally:
            other = await connection.channel()
            await (await other.get_queue(name)).delete(if_unused=False, if_empty=False)


@asynccontextmanager
async def jetstream(
    chosen: Options, subject: str, body: Body, headers: Mapping[str, str]
) -> AsyncIterator[Any]:
    """A connection, with a stream named as the run that is filled, and deleted on leaving."""
    import nats

    connection = await nats.connect(chosen.server)
    stream = connection.jetstream()
    await stream.add_stream(name=chosen.run, subjects=[subject, f"{subject}.out"])
    try:
        if chosen.shape != "latency":
            for start in range(0, chosen.total, WINDOW):
                await asyncio.gather(
                    *(
                        stream.publish(subject, body(n), headers=dict(headers))
                        for n in range(start, min(start + WINDOW, chosen.total))
                    )
                )
        yield connection
    finally:
        await stream.delete_stream(chosen.run)
        await connection.close()


@asynccontextmanager
async def redis(chosen: Options, name: str, fields: Callable[[int], Any]) -> AsyncIterator[Any]:
    """A client, with a stream that is filled, and deleted on leaving."""
    from redis.asyncio import from_url

    async with from_url(chosen.url, protocol=2) as client:
        for start in range(0, chosen.total, WINDOW):
            pipeline = client.pipeline(transaction=False)
            for number in range(start, min(start + WINDOW, chosen.total)):
                pipeline.xadd(name, fields(number))
            await pipeline.execute()
        try:
            yield client
        finally:
            await client.delete(name)
