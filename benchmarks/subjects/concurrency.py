"""Handlers that sleep: `... memory|kafka URL --rate HANDLERS`.

The throughput of so many handlers at once, each 50 ms, against the ideal. What they handle is
published before.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from protoflow import Config, Context, Output, Service
from protoflow.spec import DeliveryPolicy

from benchmarks.subjects.messages import order
from benchmarks.subjects.options import Options, options
from benchmarks.subjects.ours import WINDOW, fill

SLEEP = 0.05
#: Rounds of sleeps that are measured, and those before.
ROUNDS, WARM = 40, 4


async def main(chosen: Options) -> None:
    """Prints the throughput and its share of the ideal."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer, SinkHandler

    handlers = chosen.rate
    warm, last = WARM * handlers, (WARM + ROUNDS) * handlers
    finished: list[tuple[float, float]] = []
    done = asyncio.Event()

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            await asyncio.sleep(SLEEP)
            finished.append((time.perf_counter(), time.process_time()))
            if len(finished) == last:
                done.set()

    # One round more, so that nobody is without work before the last one that counts.
    total = last + handlers

    @asynccontextmanager
    async def filled(service: Service) -> AsyncIterator[None]:
        if chosen.transport == "memory":
            producer = OrdersEventProducer(service)
            for start in range(0, total, WINDOW):
                numbers = range(start, min(start + WINDOW, total))
                await producer.publish_order_many(Output(Order(**order(n))) for n in numbers)
        else:
            await fill(replace(chosen, warm=0, count=total))
        yield

    config = Config(
        transport=chosen.url,
        variables={"run": chosen.run},
        defaults=DeliveryPolicy(concurrency=handlers),
    )
    service = Service(config, lifespan=filled)
    service.register(Sink())
    async with service:
        await done.wait()
    wall, cpu = (
        (end - start) / (last - warm)
        for start, end in zip(finished[warm - 1], finished[last - 1], strict=True)
    )
    share = 100 * SLEEP / wall / handlers
    print(json.dumps({"per_second": 1 / wall, "share": share, "cpu_us": cpu * 1e6}))


if __name__ == "__main__":
    asyncio.run(main(options()))
