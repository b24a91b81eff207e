"""FastStream as the subject: a pydantic model, `logger=None`, at least once.

`python -m benchmarks.faststream_subject TRANSPORT URL RUN COUNT MODE SHAPE`. MODE is bare,
traced or sampled-out; but for bare, its Prometheus and OpenTelemetry middlewares are on.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from pydantic import BaseModel

from benchmarks.meter import WARM, Meter, order, traceparent, tracing
from benchmarks.raw import _topic


class Order(BaseModel):
    order_id: str
    customer: str
    sku: str
    quantity: int
    cents: int
    paid: bool


class Handled(BaseModel):
    order_id: str
    cents: int


def headers(mode: str) -> dict[str, str]:
    return {
        "traceparent": traceparent(mode),
        "correlation_id": "req-1",
        "content-type": "application/json",
    }


def middlewares(transport: str, mode: str) -> list[Any]:
    provider = tracing(mode)
    if provider is None:
        return []
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry()
    if transport == "kafka":
        from faststream.kafka.opentelemetry import KafkaTelemetryMiddleware as Telemetry
        from faststream.kafka.prometheus import KafkaPrometheusMiddleware as Prometheus
    elif transport == "rabbitmq":
        from faststream.rabbit.opentelemetry import (  # type: ignore[assignment]
            RabbitTelemetryMiddleware as Telemetry,
        )
        from faststream.rabbit.prometheus import (  # type: ignore[assignment]
            RabbitPrometheusMiddleware as Prometheus,
        )
    else:
        from faststream.nats.opentelemetry import (  # type: ignore[assignment]
            NatsTelemetryMiddleware as Telemetry,
        )
        from faststream.nats.prometheus import (  # type: ignore[assignment]
            NatsPrometheusMiddleware as Prometheus,
        )
    return [Prometheus(registry=registry), Telemetry(tracer_provider=provider)]


def body(number: int) -> bytes:
    return json.dumps(order(number)).encode()


async def kafka(url: str, run: str, meter: Meter, mode: str, shape: str) -> None:
    from aiokafka import AIOKafkaProducer
    from faststream import AckPolicy
    from faststream.kafka import KafkaBroker

    address, topic = url.partition("://")[2], f"{run}.fs"
    await _topic(address, topic)
    await _topic(address, f"{run}.out")
    pairs = [(name, value.encode()) for name, value in headers(mode).items()]
    async with AIOKafkaProducer(bootstrap_servers=address, linger_ms=5) as producer:
        sent = [
            await producer.send(topic, body(n), headers=pairs) for n in range(WARM + meter.count)
        ]
        await asyncio.gather(*sent)
    broker = KafkaBroker(address, logger=None, middlewares=middlewares("kafka", mode))
    # The automatic commit is the cheapest that FastStream has.
    subscriber = broker.subscriber(
        topic, group_id=f"{run}.fs", auto_offset_reset="earliest", ack_policy=AckPolicy.ACK_FIRST
    )
    _handler(subscriber, broker.publisher(f"{run}.out"), meter, shape)
    await _run(broker, meter)


async def rabbitmq(url: str, run: str, meter: Meter, mode: str, shape: str) -> None:
    import aio_pika
    from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

    queue = RabbitQueue(f"{run}.fs", queue_type=QueueType.QUORUM, durable=True)
    connection = await aio_pika.connect(url)
    channel = await connection.channel()
    await channel.declare_queue(queue.name, durable=True, arguments={"x-queue-type": "quorum"})
    for start in range(0, WARM + meter.count, 500):
        await asyncio.gather(
            *(
                channel.default_exchange.publish(
                    aio_pika.Message(
                        body(n), headers=dict(headers(mode)), content_type="application/json"
                    ),
                    queue.name,
                )
                for n in range(start, start + 500)
            )
        )
    broker = RabbitBroker(
        url,
        logger=None,
        middlewares=middlewares("rabbitmq", mode),
        default_channel=Channel(prefetch_count=256),
    )
    _handler(broker.subscriber(queue), broker.publisher(f"{run}.out"), meter, shape)
    await _run(broker, meter)
    await (await connection.channel()).queue_delete(queue.name)  # type: ignore[attr-defined]
    await connection.close()


async def nats(url: str, run: str, meter: Meter, mode: str, shape: str) -> None:
    from faststream.nats import NatsBroker

    broker = NatsBroker(url, logger=None, middlewares=middlewares("nats", mode))
    subscriber = broker.subscriber(f"{run}.orders", queue="sink", pending_msgs_limit=-1)
    _handler(subscriber, broker.publisher(f"{run}.out"), meter, shape)
    await broker.start()
    await broker.ping(3)
    print("ready", flush=True)
    await meter.done.wait()
    await broker.stop()


async def jetstream(url: str, run: str, meter: Meter, mode: str, shape: str) -> None:
    import nats as client
    from faststream.nats import JStream, NatsBroker

    server = url.replace("jetstream://", "nats://")
    connection = await client.connect(server)
    stream = connection.jetstream()
    name, subject = run.replace(".", "_"), f"{run}.fs"
    await stream.add_stream(name=name, subjects=[subject])
    for start in range(0, WARM + meter.count, 500):
        await asyncio.gather(
            *(
                stream.publish(subject, body(n), headers=headers(mode))
                for n in range(start, start + 500)
            )
        )
    broker = NatsBroker(server, logger=None, middlewares=middlewares("jetstream", mode))
    # A push consumer is the cheapest that it has.
    subscriber = broker.subscriber(
        subject, stream=JStream(name, declare=False), durable="fs", pending_msgs_limit=-1
    )
    _handler(subscriber, broker.publisher(f"{run}.out"), meter, shape)
    await _run(broker, meter)
    await stream.delete_stream(name)
    await connection.close()


def _handler(subscriber: Any, publisher: Any, meter: Meter, shape: str) -> None:
    async def count(message: Order) -> None:
        meter.tick()

    async def transform(message: Order) -> Handled:
        meter.tick()
        return Handled(order_id=message.order_id, cents=message.cents)

    if shape == "transform":
        publisher(subscriber(transform))
    else:
        subscriber(count)


async def _run(broker: Any, meter: Meter) -> None:
    await broker.start()
    await meter.done.wait()
    await broker.stop()


async def main(transport: str, url: str, run: str, count: str, mode: str, shape: str) -> None:
    meter = Meter(int(count))
    subjects = {"kafka": kafka, "rabbitmq": rabbitmq, "nats": nats, "jetstream": jetstream}
    await subjects[transport](url, run, meter, mode, shape)
    meter.report()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:7]))
