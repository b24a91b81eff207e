"""Handlers that sleep: `... memory|kafka|asyncio URL --rate HANDLERS`.

The throughput of so many handlers at once, each 50 ms, against the ideal. What they handle is
published before. With asyncio there are only loops that sleep: what the event loop itself takes.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from protoflow import Config, Context, Output, Service
from protoflow.contract.spec import DeliveryPolicy

from benchmarks.subjects.deployed import deployed
from benchmarks.subjects.messages import order
from benchmarks.subjects.options import Options, options
from benchmarks.subjects.ours import WINDOW, fill

SLEEP = 0.05
#: Rounds of sleeps that are measured, and those before.
ROUNDS, WARM = 40, 4


async def bare(handlers: int) -> None:
    """Loops that sleep, nothing else."""
    finished: list[tuple[float, float]] = []

    async def loop() -> None:
        while len(finished) < (WARM + ROUNDS) * handlers:
            await asyncio.sleep(SLEEP)
            finished.append((time.perf_counter(), time.process_time()))

    await asyncio.gather(*(loop() for _ in range(handlers)))
    report(finished, handlers)


async def ours(chosen: Options) -> None:
    """A service whose handlers sleep."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer, SinkHandler

    handlers = chosen.rate
    last = (WARM + ROUNDS) * handlers
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
    async with deployed(service):
        await done.wait()
    report(finished, handlers)


def report(finished: list[tuple[float, float]], handlers: int) -> None:
    """Prints the throughput and its share of the ideal."""
    warm, last = WARM * handlers, (WARM + ROUNDS) * handlers
    wall, cpu = (
        (end - start) / (last - warm)
        for start, end in zip(finished[warm - 1], finished[last - 1], strict=True)
    )
    share = 100 * SLEEP / wall / handlers
    print(json.dumps({"per_second": 1 / wall, "share": share, "cpu_us": cpu * 1e6}))


if __name__ == "__main__":
    _chosen = options()
    asyncio.run(bare(_chosen.rate) if _chosen.transport == "asyncio" else ours(_chosen))
