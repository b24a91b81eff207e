"""Publishing one message a transaction as the subject: `... woken|unwoken URL ...`.

Sixteen connections of the application commit at once. With wake-ups, the client notifies consumers
after commits; without, it notifies once.
"""

from __future__ import annotations

import asyncio
from typing import Any

from protoflow import connect

from benchmarks.subjects.databases import database
from benchmarks.subjects.messages import order
from benchmarks.subjects.meter import Meter
from benchmarks.subjects.options import Options, options

CONNECTIONS = 16
#: Seconds between two notifications.
INTERVALS = {"woken": 0.01, "unwoken": 3600.0}


async def main(chosen: Options) -> None:
    """Runs the subject."""
    import asyncpg
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer

    meter = Meter(chosen.count, chosen.warm, chosen.run)
    numbers = iter(range(chosen.total))

    async def commit(connection: Any, producer: OrdersEventProducer) -> None:
        for number in numbers:
            async with connection.transaction():
                await producer.publish_order(Order(**order(number)), in_=connection)
            meter.tick()

    interval = {"notify_interval": INTERVALS[chosen.transport]}
    async with database(chosen.url, chosen.run) as url:
        connections = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
        async with connect(
            url, variables={"run": chosen.run}, transport_options=interval, environ={}
        ) as client:
            producer = OrdersEventProducer(client)
            await asyncio.gather(*(commit(each, producer) for each in connections))
        for each in connections:
            await each.close()
    meter.report()


if __name__ == "__main__":
    asyncio.run(main(options()))
