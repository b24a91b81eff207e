"""Takes from a broker what runs have left: `... TRANSPORT URL RUN...`."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Sequence


async def kafka(url: str, runs: Sequence[str]) -> None:
    """Deletes their topics."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=url.partition("://")[2])
    await admin.start()
    try:
        topics = [topic for topic in await admin.list_topics() if topic.startswith(tuple(runs))]
        if topics:
            await admin.delete_topics(topics)
    finally:
        await admin.close()


async def jetstream(url: str, runs: Sequence[str]) -> None:
    """Deletes their streams."""
    import nats

    connection = await nats.connect(url.replace("jetstream://", "nats://"))
    manager = connection.jetstream()
    for info in await manager.streams_info_iterator():
        name = info.config.name or ""
        if any(run in name for run in runs):
            await manager.delete_stream(name)
    await connection.close()


async def rabbitmq(url: str, runs: Sequence[str]) -> None:
    """Deletes our queues; the others delete their own."""
    import aio_pika
    from protoflow.config import Config
    from protoflow.transports.rabbitmq.names import Names
    from protoflow.transports.rabbitmq.options import RabbitMQOptions

    settings = Config(environ={})
    names = Names(RabbitMQOptions().exchange, 1)
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        for run, group in ((run, f"{run}.{name}") for run in runs for name in ("sink", "pipe")):
            topic = f"{run}.orders"
            own = names.of(topic, group)
            queues = [
                own.queue(0),
                names.dead_letters(f"{topic}..{group}..dead"),
                *map(own.retry, settings.retry_ladder),
            ]
            for queue in queues:
                with contextlib.suppress(aio_pika.exceptions.AMQPError):
                    await channel.queue_delete(queue)


async def redis(url: str, runs: Sequence[str]) -> None:
    """Deletes their keys."""
    from redis.asyncio import from_url

    async with from_url(url) as client:
        async for key in client.scan_iter(count=1000):
            if any(run in key.decode(errors="replace") for run in runs):
                await client.delete(key)


async def postgresql(url: str, runs: Sequence[str]) -> None:
    """Drops the databases of runs that were ended."""
    import asyncpg

    connection = await asyncpg.connect(url)
    for run in runs:
        await connection.execute(f"DROP DATABASE IF EXISTS {run} WITH (FORCE)")
    await connection.close()


async def nats(url: str, runs: Sequence[str]) -> None:
    """Nothing is kept there."""


if __name__ == "__main__":
    transport, url, *runs = sys.argv[1:]
    cleaners = {
        "kafka": kafka,
        "jetstream": jetstream,
        "rabbitmq": rabbitmq,
        "redis": redis,
        "nats": nats,
        "postgresql": postgresql,
    }
    asyncio.run(cleaners[transport](url, runs))
