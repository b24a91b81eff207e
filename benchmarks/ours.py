"""Protoflow as the subject: `python -m benchmarks.ours TRANSPORT URL RUN COUNT MODE SHAPE`.

All default middleware is on. MODE is traced, sampled-out or untraced; SHAPE is consume or
transform.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from protoflow import Config, Context, Output, Service, connect

from benchmarks.meter import WARM, Meter, order, traceparent, tracing


async def main(transport: str, url: str, run: str, count: int, mode: str, shape: str) -> None:
    from bench.v1.orders_pb2 import Handled, Order
    from bench.v1.orders_protoflow import OrdersEventProducer, PipeHandler, SinkHandler

    tracing(mode)
    meter = Meter(count)

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            meter.tick()

    class Pipe(PipeHandler):
        async def transform(self, message: Order, context: Context, /) -> Handled:
            meter.tick()
            return Handled(order_id=message.order_id, cents=message.cents)

    # Deep enough that confirmations never make the worker wait, as FastStream never waits.
    config = Config(transport=url, variables={"run": run}, max_in_flight=2000)
    metadata = {"traceparent": traceparent(mode), "correlation_id": "req-1"}

    async def fill() -> None:
        async with connect(url, variables={"run": run}) as publisher:
            producer = OrdersEventProducer(publisher)
            window = 500
            for start in range(0, WARM + count, window):
                await producer.publish_order_many(
                    Output(Order(**order(number)), metadata=metadata)
                    for number in range(start, min(start + window, WARM + count))
                )

    @asynccontextmanager
    async def filled(service: Service) -> AsyncIterator[None]:
        # After the topology is there and before anything is consumed.
        if transport != "nats":
            await fill()
        yield

    service = Service(config, lifespan=filled)
    service.register(Pipe() if shape == "transform" else Sink())
    async with service:
        if transport == "nats":
            print("ready", flush=True)
        await meter.done.wait()
    meter.report(handled=sum(books.handled for books in service.stats().values()))


def arguments(argv: list[str]) -> tuple[Any, ...]:
    transport, url, run, count, mode, shape = argv
    return transport, url, run, int(count), mode, shape


if __name__ == "__main__":
    asyncio.run(main(*arguments(sys.argv[1:])))
