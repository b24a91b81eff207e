"""Emptying an outbox as the subject: `... ours|faststream-outbox URL ...`.

What is relayed goes to a broker that takes everything at once, so that the outbox alone is
measured. faststream-outbox runs at the settings that were best for it: 16 workers, 500 rows a
fetch, 500 deletions a flush.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks.subjects.databases import database
from benchmarks.subjects.messages import json_body, order
from benchmarks.subjects.meter import Meter
from benchmarks.subjects.options import Options, options

#: Messages that are written in one transaction.
WINDOW = 500


class Broker:
    """Confirms whatever is submitted."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def submit(self, messages: Sequence[Any]) -> asyncio.Future[list[None]]:
        """Counts."""
        for _ in messages:
            self._meter.tick()
        done: asyncio.Future[list[None]] = asyncio.get_running_loop().create_future()
        done.set_result([None] * len(messages))
        return done


async def ours(chosen: Options, url: str, meter: Meter) -> None:
    """A relay."""
    import asyncpg
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer
    from protoflow import Output, connect
    from protoflow.outbox import OutboxRelay, PostgresOutbox

    store = PostgresOutbox(url)
    await store.backlog()  # creates its tables
    producer = OrdersEventProducer(connect("kafka://nobody.invalid", variables={"run": chosen.run}))
    connection: Any = await asyncpg.connect(url)
    for start in range(0, chosen.total, WINDOW):
        numbers = range(start, min(start + WINDOW, chosen.total))
        async with connection.transaction():
            await producer.publish_order_many(
                [Output(Order(**order(number))) for number in numbers], in_=connection
            )
    await connection.close()
    async with OutboxRelay(store, Broker(meter)):  # type: ignore[arg-type]
        await meter.done.wait()
        while (await store.backlog())[0]:
            await asyncio.sleep(0.01)
    await store.close()


async def faststream_outbox(chosen: Options, url: str, meter: Meter) -> None:
    """A subscriber that does nothing."""
    from faststream_outbox import OutboxBroker, make_outbox_table
    from sqlalchemy import MetaData
    from sqlalchemy.ext.asyncio import create_async_engine

    metadata = MetaData()
    table = make_outbox_table(metadata, table_name="outbox")
    engine = create_async_engine(
        url.replace("postgresql://", "postgresql+asyncpg://"), pool_size=20
    )
    broker = OutboxBroker(
        engine,
        outbox_table=table,
    )

    @broker.subscriber(
        "orders", max_workers=16, fetch_batch_size=500, terminal_flush_batch_size=500,
        min_fetch_interval=0.001, max_fetch_interval=0.05,
    )  # fmt: skip
    async def relay(message: Any) -> None:
        meter.tick()

    async with engine.begin() as connection:
        await connection.run_sync(metadata.create_all)
    for start in range(0, chosen.total, WINDOW):
        numbers = range(start, min(start + WINDOW, chosen.total))
        async with engine.begin() as connection:
            bodies = [json_body(number) for number in numbers]
            await broker.publish_batch(*bodies, queue="orders", session=connection)
    await broker.start()
    await meter.done.wait()
    await broker.stop()
    await engine.dispose()


async def main(chosen: Options) -> None:
    """Runs the subject."""
    meter = Meter(chosen.count, chosen.warm)
    relays = {"ours": ours, "faststream-outbox": faststream_outbox}
    async with database(chosen.url, chosen.run) as url:
        await relays[chosen.transport](chosen, url, meter)
    meter.report()


if __name__ == "__main__":
    if "faststream-outbox" in sys.argv:
        import uvloop

        uvloop.run(main(options()))
    else:
        asyncio.run(main(options()))
