"""The raw clients as the subject: parse and count, at-least-once, in their cheapest way.

`python -m benchmarks.raw TRANSPORT URL RUN COUNT`
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from benchmarks.meter import WARM, Meter, order, traceparent

HEADERS = {
    "ce_id": "01J00000000000000000000000",
    "ce_type": "bench.v1.Order",
    "ce_source": "bench",
    "ce_specversion": "1.0",
    "content-type": "application/protobuf",
    "traceparent": traceparent("traced"),
    "correlation_id": "req-1",
}


async def kafka(url: str, run: str, meter: Meter) -> None:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
    from bench.v1.orders_pb2 import Order

    address, topic = url.partition("://")[2], f"{run}.orders"
    await _topic(address, topic)
    headers = [(name, value.encode()) for name, value in HEADERS.items()]
    async with AIOKafkaProducer(bootstrap_servers=address, linger_ms=5) as producer:
        sent = [
            await producer.send(topic, Order(**order(n)).SerializeToString(), headers=headers)
            for n in range(WARM + meter.count)
        ]
        await asyncio.gather(*sent)
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=address,
        group_id=f"{run}.sink",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        while not meter.done.is_set():
            batch = await consumer.getmany(timeout_ms=500, max_records=500)
            for records in batch.values():
                for record in records:
                    Order.FromString(record.value)
                    meter.tick()
            await consumer.commit()


async def _topic(address: str, topic: str, partitions: int = 1) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1)])
    finally:
        await admin.close()


async def rabbitmq(url: str, run: str, meter: Meter) -> None:
    import aio_pika
    from bench.v1.orders_pb2 import Order

    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=256)
    arguments = {"x-queue-type": "quorum"}
    queue = await channel.declare_queue(f"{run}.raw", durable=True, arguments=arguments)
    exchange = channel.default_exchange
    for start in range(0, WARM + meter.count, 500):
        await asyncio.gather(
            *(
                exchange.publish(
                    aio_pika.Message(Order(**order(n)).SerializeToString(), headers=dict(HEADERS)),
                    queue.name,
                )
                for n in range(start, start + 500)
            )
        )

    async def handle(message: Any) -> None:
        Order.FromString(message.body)
        await message.ack()
        meter.tick()

    await queue.consume(handle)
    await meter.done.wait()
    await queue.delete(if_unused=False, if_empty=False)
    await connection.close()


async def nats(url: str, run: str, meter: Meter) -> None:
    import nats as client
    from bench.v1.orders_pb2 import Order

    connection = await client.connect(url)

    async def handle(message: Any) -> None:
        Order.FromString(message.data)
        meter.tick()

    await connection.subscribe(f"{run}.orders", queue="sink", cb=handle, pending_msgs_limit=-1)
    await connection.flush()
    print("ready", flush=True)
    await meter.done.wait()
    await connection.close()


async def jetstream(url: str, run: str, meter: Meter) -> None:
    import nats as client
    from bench.v1.orders_pb2 import Order
    from nats.js.api import ConsumerConfig

    connection = await client.connect(url.replace("jetstream://", "nats://"))
    stream = connection.jetstream()
    name, subject = run.replace(".", "_"), f"{run}.orders"
    await stream.add_stream(name=name, subjects=[subject])
    for start in range(0, WARM + meter.count, 500):
        await asyncio.gather(
            *(
                stream.publish(subject, Order(**order(n)).SerializeToString(), headers=HEADERS)
                for n in range(start, start + 500)
            )
        )

    async def handle(message: Any) -> None:
        Order.FromString(message.data)
        await message.ack()
        meter.tick()

    await stream.subscribe(
        subject,
        durable="raw",
        cb=handle,
        manual_ack=True,
        pending_msgs_limit=-1,
        config=ConsumerConfig(max_ack_pending=1000),
    )
    await meter.done.wait()
    await stream.delete_stream(name)
    await connection.close()


async def main(transport: str, url: str, run: str, count: str) -> None:
    meter = Meter(int(count))
    await {"kafka": kafka, "rabbitmq": rabbitmq, "nats": nats, "jetstream": jetstream}[transport](
        url, run, meter
    )
    meter.report()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:5]))
