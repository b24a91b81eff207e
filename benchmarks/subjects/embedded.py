"""Publish and handle in one process: `... memory|sqlite|testbroker URL [--mode ...]`.

Where testbroker is FastStream's TestKafkaBroker, which handles within `publish`.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.subjects.deployed import deployed
from benchmarks.subjects.messages import attach, metadata, order, tracing
from benchmarks.subjects.meter import Meter
from benchmarks.subjects.options import Options, options

#: Messages a publisher hands over at once, and how many such hand-overs wait at most.
WINDOW, DEPTH = 100, 10


async def ours(chosen: Options, url: str, meter: Meter) -> None:
    """A service that publishes to itself."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer, SinkHandler
    from protoflow import Config, Context, Output, Service

    tracing(chosen.mode)

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            meter.tick()

    service = Service(Config(transport=url, variables={"run": chosen.run}, max_in_flight=2000))
    service.register(Sink())
    beside = metadata(chosen.mode)
    messages = [Output(Order(**order(number)), metadata=beside) for number in range(WINDOW)]
    async with deployed(service):
        producer = OrdersEventProducer(service)
        pending: set[asyncio.Task[list[str]]] = set()
        for _ in range(chosen.total // WINDOW):
            pending.add(asyncio.create_task(producer.publish_order_many(messages)))
            if len(pending) >= DEPTH:
                _done, pending = await asyncio.wait(pending, return_when="FIRST_COMPLETED")
        await meter.done.wait()


async def testbroker(chosen: Options, meter: Meter) -> None:
    """FastStream without a broker."""
    from faststream.kafka import KafkaBroker, TestKafkaBroker

    from benchmarks.subjects.faststream import Order, middlewares

    broker = KafkaBroker(logger=None, middlewares=middlewares("kafka", chosen.mode))

    @broker.subscriber("orders", group_id="sink")
    async def count(message: Order) -> None:
        meter.tick()

    headers: dict[str, Any] = metadata(chosen.mode)
    attach(chosen.mode)  # its publish takes the parent from the context, ours from the metadata
    async with TestKafkaBroker(broker) as tested:
        body = Order(**order(1))
        while not meter.done.is_set():
            await tested.publish(body, "orders", headers=headers)


async def main(chosen: Options) -> None:
    """Runs the subject; the URL of sqlite is its options only: `?synchronous=full`."""
    meter = Meter(chosen.count, chosen.warm)
    match chosen.transport:
        case "testbroker":
            await testbroker(chosen, meter)
        case "sqlite":
            with tempfile.TemporaryDirectory() as directory:
                path = Path(directory) / "queue.db"
                await ours(chosen, f"sqlite:///{path}{chosen.url}", meter)
        case _:
            await ours(chosen, "memory://", meter)
    meter.report()


if __name__ == "__main__":
    asyncio.run(main(options()))
