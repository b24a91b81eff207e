"""Publishes at a steady rate, with the time in each message.

`... LIBRARY TRANSPORT URL RUN COUNT RATE`. Each library publishes by itself, without waiting
for one confirmation before the next message.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.subjects.messages import event_headers, json_headers, metadata, order

Publish = Callable[[int], Awaitable[Any]]


def now() -> str:
    """What a message is stamped with."""
    return str(time.monotonic_ns())


@asynccontextmanager
async def ours(transport: str, url: str, run: str) -> AsyncIterator[Publish]:
    """By the generated producer."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer
    from protoflow import connect

    beside = metadata("traced")
    async with connect(url, variables={"run": run}) as publisher:
        producer = OrdersEventProducer(publisher)
        yield lambda n: producer.publish_order(Order(**order(n, stamp=now())), metadata=beside)


@asynccontextmanager
async def faststream(transport: str, url: str, run: str) -> AsyncIterator[Publish]:
    """By its broker's `publish`."""
    from benchmarks.subjects.faststream import Order

    headers = json_headers("traced")
    broker: Any
    where: dict[str, Any]
    if transport == "kafka":
        from faststream.kafka import KafkaBroker

        broker, where = KafkaBroker(url.partition("://")[2], logger=None), {"topic": f"{run}.fs"}
    elif transport == "rabbitmq":
        from faststream.rabbit import RabbitBroker

        broker, where = RabbitBroker(url, logger=None), {"queue": f"{run}.fs"}
    else:
        from faststream.nats import NatsBroker

        broker = NatsBroker(url.replace("jetstream://", "nats://"), logger=None)
        where = {"subject": f"{run}.orders"}
        if transport == "jetstream":
            where = {"subject": f"{run}.fs", "stream": run}
    async with broker:
        yield lambda n: broker.publish(Order(**order(n, stamp=now())), headers=headers, **where)


@asynccontextmanager
async def raw(transport: str, url: str, run: str) -> AsyncIterator[Publish]:
    """By the client."""
    from bench.v1.orders_pb2 import Order

    headers = event_headers()

    def payload(number: int) -> bytes:
        return Order(**order(number, stamp=now())).SerializeToString()

    if transport == "kafka":
        from aiokafka import AIOKafkaProducer

        pairs = [(name, value.encode()) for name, value in headers.items()]
        async with AIOKafkaProducer(bootstrap_servers=url.partition("://")[2]) as producer:
            yield lambda n: producer.send_and_wait(f"{run}.orders", payload(n), headers=pairs)
    elif transport == "rabbitmq":
        import aio_pika

        async with await aio_pika.connect(url) as connection:
            exchange = (await connection.channel()).default_exchange
            yield lambda n: exchange.publish(
                aio_pika.Message(payload(n), headers=dict(headers)), f"{run}.raw"
            )
    else:
        import nats

        client: Any = await nats.connect(url.replace("jetstream://", "nats://"))
        publish: Any = client.publish
        if transport == "jetstream":
            publish = client.jetstream().publish
        yield lambda n: publish(f"{run}.orders", payload(n), headers=headers)
        await client.close()


LIBRARIES = {"ours": ours, "faststream": faststream, "raw": raw}


async def main(library: str, transport: str, url: str, run: str, count: int, rate: int) -> None:
    """Publishes each message when it is due, in a task of its own."""
    running: set[asyncio.Task[Any]] = set()

    async def one(publish: Publish, number: int) -> None:
        await publish(number)

    async with LIBRARIES[library](transport, url, run) as publish:
        start = time.monotonic()
        for number in range(count):
            wait = start + number / rate - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(one(publish, number))
            running.add(task)
            task.add_done_callback(running.discard)
        await asyncio.gather(*running)


if __name__ == "__main__":
    library, transport, url, run, count, rate = sys.argv[1:7]
    asyncio.run(main(library, transport, url, run, int(count), int(rate)))
