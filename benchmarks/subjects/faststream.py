"""FastStream as the subject: a pydantic model and `logger=None`.

`python -m benchmarks.subjects.faststream TRANSPORT URL [--shape ...] [--mode ...] ...`. Its
Prometheus and OpenTelemetry middlewares are on unless the mode is untraced. On Kafka the
acknowledgement goes by the shape:

- consume, latency: ACK_FIRST, the automatic commit, its default and cheapest;
- transform: ACK, a commit after the handler and the confirmation of what it published, as
  many workers as partitions, more having nothing to do;
- transform-first: the same with ACK_FIRST and 100 workers: its fastest, without a guarantee;
- batches: ACK of batches of up to 500, published as batches.
"""

from __future__ import annotations

import asyncio
import warnings
from contextlib import ExitStack, suppress
from typing import Any

from protoflow.service.gc_tuning import raised_threshold
from pydantic import BaseModel

from benchmarks.subjects.messages import json_body, json_headers, tracing
from benchmarks.subjects.meter import Latencies, Meter
from benchmarks.subjects.options import Options, options
from benchmarks.subjects.ours import load, pacer
from benchmarks.subjects.prefill import jetstream, kafka, rabbitmq, redis


class Order(BaseModel):
    """What is consumed."""

    order_id: str
    customer: str
    sku: str
    quantity: int
    cents: int
    paid: bool


class Handled(BaseModel):
    """What is published."""

    order_id: str
    cents: int


class Subject:
    """One subject."""

    def __init__(self, chosen: Options) -> None:
        self.chosen = chosen
        self.meter = Meter(chosen.count, chosen.warm)
        self.latencies = Latencies(chosen.count, chosen.warm)
        self._late = chosen.shape == "latency"
        self.done = self.latencies.done if self._late else self.meter.done
        self._headers = json_headers(chosen.mode)
        self._middlewares = middlewares(chosen.transport, chosen.mode)

    async def kafka(self) -> None:
        """See the acknowledgements above."""
        from faststream import AckPolicy
        from faststream.kafka import KafkaBroker

        chosen = self.chosen
        topics = [f"{chosen.run}.fs", f"{chosen.run}.out"]
        await kafka(chosen, topics, json_body, self._headers)
        broker = KafkaBroker(chosen.address, logger=None, middlewares=self._middlewares)
        extra: dict[str, Any] = {"ack_policy": AckPolicy.ACK_FIRST}
        if chosen.shape == "transform":
            extra = {"ack_policy": AckPolicy.ACK, "max_workers": chosen.partitions}
        elif chosen.shape == "transform-first":
            extra["max_workers"] = 100
        elif chosen.shape == "batches":
            extra = {"ack_policy": AckPolicy.ACK, "batch": True, "max_records": 500}
        subscriber: Any = broker.subscriber(
            topics[0], group_id=f"{chosen.run}.fs", auto_offset_reset="earliest", **extra
        )
        publisher: Any = broker.publisher(topics[1], batch=chosen.shape == "batches")
        self._register(subscriber, publisher)
        await self._run(broker)

    async def rabbitmq(self) -> None:
        """256 prefetched, acknowledged after the handler: its default."""
        from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

        chosen = self.chosen
        name = f"{chosen.run}.fs"
        async with rabbitmq(chosen, name, json_body, self._headers, "application/json"):
            queue = RabbitQueue(name, queue_type=QueueType.QUORUM, durable=True)
            broker = RabbitBroker(
                chosen.url,
                logger=None,
                middlewares=self._middlewares,
                default_channel=Channel(prefetch_count=256),
            )
            publisher = broker.publisher(f"{name}.out", mandatory=False)
            self._register(broker.subscriber(queue), publisher)
            await self._run(broker)

    async def nats(self) -> None:
        """A queue subscription; nothing is acknowledged."""
        from faststream.nats import NatsBroker

        chosen = self.chosen
        broker = NatsBroker(chosen.url, logger=None, middlewares=self._middlewares)
        self._register(
            broker.subscriber(f"{chosen.run}.orders", queue="sink", pending_msgs_limit=-1)
        )
        await self._run(broker, "json")

    async def jetstream(self) -> None:
        """A push consumer, the cheapest that it has, acknowledged after the handler."""
        from faststream.nats import JStream, NatsBroker

        chosen = self.chosen
        subject = f"{chosen.run}.fs"
        async with jetstream(chosen, subject, json_body, self._headers):
            broker = NatsBroker(chosen.server, logger=None, middlewares=self._middlewares)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that push consumers do not scale
                subscriber = broker.subscriber(
                    subject,
                    stream=JStream(chosen.run, declare=False),
                    durable="fs",
                    pending_msgs_limit=-1,
                )
            self._register(subscriber, broker.publisher(f"{subject}.out", stream=chosen.run))
            await self._run(broker)

    async def redis(self) -> None:
        """A consumer of a group that reads 100 entries at a time, acknowledged after each
        handler."""
        from faststream.redis import RedisBroker, StreamSub
        from faststream.redis.parser import BinaryMessageFormatV1

        chosen, name = self.chosen, f"{self.chosen.run}.fs"
        headers = {"content-type": "application/json", **self._headers}
        broker = RedisBroker(chosen.url, logger=None, middlewares=self._middlewares)
        encode = BinaryMessageFormatV1.encode
        bodies = [
            await encode(
                message=json_body(n), reply_to=None, headers=headers, correlation_id=f"{n}"
            )
            for n in range(chosen.total)
        ]
        async with redis(chosen, name, lambda n: {"__data__": bodies[n]}) as client:
            await client.xgroup_create(name, "fs", "0")
            stream = StreamSub(name, group="fs", consumer="one", max_records=100)
            self._register(broker.subscriber(stream=stream))
            await self._run(broker)

    def _register(self, subscriber: Any, publisher: Any = None) -> None:
        tick, stamp = self.meter.tick, self.latencies.stamp

        async def count(message: Order) -> None:
            tick()

        async def late(message: Order) -> None:
            stamp(message.customer)

        async def transform(message: Order) -> Handled:
            tick()
            return Handled(order_id=message.order_id, cents=message.cents)

        async def batch(messages: list[Order]) -> list[Handled]:
            for _ in messages:
                tick()
            return [Handled(order_id=one.order_id, cents=one.cents) for one in messages]

        match self.chosen.shape:
            case "consume":
                subscriber(count)
            case "latency":
                subscriber(late)
            case "batches":
                publisher(subscriber(batch))
            case _:
                publisher(subscriber(transform))

    async def _run(self, broker: Any, kind: str = "") -> None:
        with ExitStack() as beside:
            await broker.start()
            beside.enter_context(raised_threshold(self.chosen.gc or 0))
            if kind:
                await broker.ping(3)  # the subscription has reached the server
            if self._late:
                beside.enter_context(pacer(self.chosen, "faststream"))
            elif kind:
                beside.enter_context(load(self.chosen, kind))
            await self.done.wait()
            with suppress(TimeoutError):  # many workers leave their group one by one
                await asyncio.wait_for(broker.stop(), 3)

    def report(self) -> None:
        """Prints the result for the runner."""
        (self.latencies if self._late else self.meter).report()


def middlewares(transport: str, mode: str) -> list[Any]:
    """Its Prometheus and OpenTelemetry middlewares, or none."""
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
    elif transport == "redis":
        from faststream.redis.opentelemetry import (  # type: ignore[assignment]
            RedisTelemetryMiddleware as Telemetry,
        )
        from faststream.redis.prometheus import (  # type: ignore[assignment]
            RedisPrometheusMiddleware as Prometheus,
        )
    else:
        from faststream.nats.opentelemetry import (  # type: ignore[assignment]
            NatsTelemetryMiddleware as Telemetry,
        )
        from faststream.nats.prometheus import (  # type: ignore[assignment]
            NatsPrometheusMiddleware as Prometheus,
        )
    return [Prometheus(registry=registry), Telemetry(tracer_provider=provider)]


async def main(chosen: Options) -> None:
    """Runs the subject of a transport."""
    subject = Subject(chosen)
    await getattr(subject, chosen.transport)()
    subject.report()


if __name__ == "__main__":
    asyncio.run(main(options()))
