"""Publish and handle in one process: `python -m benchmarks.embedded SUBJECT COUNT MODE`.

SUBJECT is memory, sqlite-normal, sqlite-full or testbroker (FastStream's TestKafkaBroker).
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks.meter import WARM, Meter, order, traceparent, tracing

#: Messages a publisher hands over at once.
WINDOW = 100


async def ours(url: str, meter: Meter, mode: str) -> None:
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer, SinkHandler
    from protoflow import Config, Context, Output, Service

    tracing(mode)

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            meter.tick()

    config = Config(transport=url, variables={"run": "bench"}, max_in_flight=2000)
    service = Service(config)
    service.register(Sink())
    metadata = {"traceparent": traceparent(mode), "correlation_id": "req-1"}
    messages = [Output(Order(**order(number)), metadata=metadata) for number in range(WINDOW)]
    async with service:
        producer = OrdersEventProducer(service)
        pending: set[asyncio.Task[list[str]]] = set()
        for _ in range((WARM + meter.count) // WINDOW):
            pending.add(asyncio.create_task(producer.publish_order_many(messages)))
            if len(pending) >= 10:
                _done, pending = await asyncio.wait(pending, return_when="FIRST_COMPLETED")
        await meter.done.wait()


async def testbroker(meter: Meter, mode: str) -> None:
    from faststream.kafka import KafkaBroker, TestKafkaBroker

    from benchmarks.faststream_subject import Order, middlewares

    broker = KafkaBroker(logger=None, middlewares=middlewares("kafka", mode))

    @broker.subscriber("orders", group_id="sink")
    async def count(message: Order) -> None:
        meter.tick()

    headers = {"traceparent": traceparent(mode), "correlation_id": "req-1"}
    async with TestKafkaBroker(broker) as tested:
        body = Order(**order(1))
        while not meter.done.is_set():
            await tested.publish(body, "orders", headers=headers)


async def main(subject: str, count: str, mode: str) -> None:
    meter = Meter(int(count))
    if subject == "testbroker":
        await testbroker(meter, mode)
    elif subject == "memory":
        await ours("memory://", meter, mode)
    else:
        level = subject.partition("-")[2]
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "queue.db"
            await ours(f"sqlite:///{path}?synchronous={level}", meter, mode)
    meter.report()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:4]))
