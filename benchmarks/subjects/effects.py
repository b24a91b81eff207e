"""A handler that writes a row for each message as the subject: `... once|often URL ...`.

`once` writes in the transaction of an inbox, `often` in a transaction of its own on the same pool.
The messages come from memory, so that nothing else costs much.
"""

from __future__ import annotations

import asyncio
from typing import Any

from protoflow import Config, Context, Inbox, Output, Service

from benchmarks.subjects.databases import database
from benchmarks.subjects.deployed import deployed
from benchmarks.subjects.messages import order
from benchmarks.subjects.meter import Meter
from benchmarks.subjects.options import Options, options

CONNECTIONS = 8
_WRITE = "INSERT INTO effects VALUES ($1, $2)"


def handler(pool: Any, inbox: Inbox[Any], kind: str, meter: Meter) -> Any:
    """The handler of a kind."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OftenHandler, OnceHandler

    class Once(OnceHandler):
        async def write(self, message: Order, context: Context, /) -> None:
            await inbox.of(context).execute(_WRITE, message.order_id, message.cents)
            meter.tick()

    class Often(OftenHandler):
        async def write(self, message: Order, context: Context, /) -> None:
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute(_WRITE, message.order_id, message.cents)
            meter.tick()

    return {"once": Once, "often": Often}[kind]()


async def main(chosen: Options) -> None:
    """Runs the subject."""
    import asyncpg
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer

    meter = Meter(chosen.count, chosen.warm, chosen.run)
    async with (
        database(chosen.url, chosen.run) as url,
        asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool,
    ):
        await pool.execute("CREATE TABLE effects (id text, cents bigint)")
        inbox: Inbox[Any] = Inbox(pool)
        config = Config(transport="memory://", variables={"run": chosen.run})
        service = Service(config, inbox=inbox if chosen.transport == "once" else None)
        service.register(handler(pool, inbox, chosen.transport, meter))
        async with deployed(service):
            producer = OrdersEventProducer(service)
            await producer.publish_order_many(
                Output(Order(**order(number))) for number in range(chosen.total)
            )
            await meter.done.wait()
    meter.report()


if __name__ == "__main__":
    asyncio.run(main(options()))
