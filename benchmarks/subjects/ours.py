"""Protoflow as the subject, all default middleware on.

`python -m benchmarks.subjects.ours TRANSPORT URL [--shape consume|transform|batches|latency]
[--mode traced|sampled-out|untraced] ...`
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from protoflow import Batch, Config, Context, Output, Service, connect

from benchmarks.subjects.child import child
from benchmarks.subjects.deployed import deployed
from benchmarks.subjects.messages import metadata, order, tracing
from benchmarks.subjects.meter import Latencies, Meter
from benchmarks.subjects.options import Options, options

#: Messages that are published at once.
WINDOW = 500


def config(chosen: Options, **settings: Any) -> Config:
    """Deep enough that confirmations never make a worker wait, as FastStream never waits."""
    given: dict[str, Any] = {"variables": {"run": chosen.run}, "max_in_flight": 2000, **settings}
    if chosen.gc is not None:
        given["gc_threshold"] = chosen.gc
    if chosen.transport == "kafka":
        given["transport_options"] = {"partitions": chosen.partitions}
    return Config(transport=chosen.url, **given)


async def fill(chosen: Options) -> None:
    """Publishes everything that is to be handled."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer

    def window(start: int) -> Iterator[Output[Order]]:
        for number in range(start, min(start + WINDOW, chosen.total)):
            yield Output(Order(**order(number)), metadata=metadata(chosen.mode))

    async with connect(chosen.url, variables={"run": chosen.run}) as publisher:
        producer = OrdersEventProducer(publisher)
        for start in range(0, chosen.total, WINDOW):
            await producer.publish_order_many(window(start))


def handler(shape: str, meter: Meter, latencies: Latencies) -> Any:
    """The handler of a shape."""
    from bench.v1.orders_pb2 import Handled, Order
    from bench.v1.orders_protoflow import BatchPipeHandler, PipeHandler, SinkHandler

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            meter.tick()

    class Stamps(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            latencies.stamp(message.customer)

    class Pipe(PipeHandler):
        async def transform(self, message: Order, context: Context, /) -> Handled:
            return Handled(order_id=message.order_id, cents=message.cents)

    class BatchPipe(BatchPipeHandler):
        async def transform_many(
            self, batch: Batch[Order], context: Context, /
        ) -> AsyncIterator[Output[Handled]]:
            for message in batch:
                handled = Handled(order_id=message.order_id, cents=message.cents)
                yield Output(handled, caused_by=message)

    return {"consume": Sink, "latency": Stamps, "transform": Pipe, "batches": BatchPipe}[shape]()


async def main(chosen: Options) -> None:
    """Handles what was published before, or what a paced publisher publishes meanwhile."""
    tracing(chosen.mode)
    meter = Meter(chosen.count, chosen.warm)
    latencies = Latencies(chosen.count, chosen.warm)

    @asynccontextmanager
    async def filled(service: Service) -> AsyncIterator[None]:
        # After the topology is there and before anything is consumed.
        if chosen.transport != "nats" and chosen.shape != "latency":
            await fill(chosen)
        yield

    service = Service(config(chosen), lifespan=filled)
    service.register(handler(chosen.shape, meter, latencies))

    def published() -> int:
        return sum(stats.published for stats in service.stats().values())

    with ExitStack() as beside:
        async with deployed(service):
            if chosen.shape == "latency":
                beside.enter_context(pacer(chosen))
                await latencies.done.wait()
            elif chosen.shape in ("transform", "batches"):
                await meter.follow(published)
            else:
                if chosen.transport == "nats":
                    beside.enter_context(load(chosen, "proto"))
                await meter.done.wait()
    if chosen.shape == "latency":
        latencies.report()
    else:
        meter.report()


def pacer(chosen: Options, library: str = "ours") -> Any:
    """The publisher of latencies, in a process of its own."""
    return child(
        "benchmarks.subjects.pacer", library, chosen.transport, chosen.url, chosen.run,
        chosen.total, chosen.rate,
    )  # fmt: skip


def load(chosen: Options, kind: str) -> Any:
    """The publisher on NATS core, which keeps nothing, in a process of its own."""
    return child(
        "benchmarks.subjects.nats_load", chosen.url, f"{chosen.run}.orders", chosen.total + 500,
        kind, chosen.mode,
    )  # fmt: skip


if __name__ == "__main__":
    asyncio.run(main(options()))
