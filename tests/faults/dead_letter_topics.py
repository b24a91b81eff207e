"""Makes a dead-letter topic refuse what comes, and take it again."""

from __future__ import annotations

from urllib.parse import urlsplit

import aio_pika
import asyncpg
import nats
import redis.asyncio
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from protoflow.transports.nats.names import JetStreamNames
from protoflow.transports.redis import names


async def writable(broker: str, url: str, topic: str, *, open: bool) -> None:
    """Opens or closes the dead-letter topic at the broker itself."""
    ways = {
        "kafka": _kafka,
        "rabbitmq": _rabbitmq,
        "jetstream": _jetstream,
        "postgresql": _postgresql,
        "redis": _redis,
    }
    await ways[broker](url, topic, open)


async def _kafka(url: str, topic: str, open: bool) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=urlsplit(url).netloc)
    await admin.start()
    try:
        limit = "1000000" if open else "1"
        resource = ConfigResource(
            ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": limit}
        )
        await admin.alter_configs([resource])
    finally:
        await admin.close()


async def _rabbitmq(url: str, topic: str, open: bool) -> None:
    connection = await aio_pika.connect(url)
    async with connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("protoflow", ensure=False)
        queue = await channel.get_queue(f"protoflow/{topic}", ensure=False)
        if open:
            await queue.bind(exchange, topic)
        else:
            await queue.unbind(exchange, topic)


async def _jetstream(url: str, topic: str, open: bool) -> None:
    client = await nats.connect(url.replace("jetstream://", "nats://"))
    try:
        stream = client.jetstream()
        name = JetStreamNames("protoflow").stream(topic)
        config = (await stream.stream_info(name)).config
        config.max_msg_size = -1 if open else 1
        await stream.update_stream(config)
    finally:
        await client.close()


async def _redis(url: str, topic: str, open: bool) -> None:
    """Something that is no stream has its name meanwhile."""
    stream, aside = names.stream("protoflow", topic, 0), f"aside:{topic}"
    async with redis.asyncio.from_url(url) as client:
        if open:
            await client.delete(stream)
            if await client.exists(aside):
                await client.rename(aside, stream)
        else:
            if await client.exists(stream):
                await client.rename(stream, aside)
            await client.set(stream, "in the way")


async def _postgresql(url: str, topic: str, open: bool) -> None:
    connection = await asyncpg.connect(url)
    try:
        if open:
            await connection.execute("DROP TRIGGER refuse ON protoflow.dead_letters")
            return
        await connection.execute(
            """CREATE OR REPLACE FUNCTION protoflow.refuse() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN RAISE EXCEPTION 'says the test'; END $$"""
        )
        await connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON protoflow.dead_letters "
            "EXECUTE FUNCTION protoflow.refuse()"
        )
    finally:
        await connection.close()
