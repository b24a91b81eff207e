"""Queues in PostgreSQL as the subject: `... ours|raw|per-key|pgqueuer|procrastinate URL ...`.

Each in a database of its own, filled before anything is consumed, at the settings that were best
for it: pgqueuer on uvloop with batches of 500, procrastinate with 20 jobs at once. With `--shape
held` a transaction that has written stays open meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from benchmarks.subjects import ours
from benchmarks.subjects.databases import database, held_transaction
from benchmarks.subjects.deployed import deployed
from benchmarks.subjects.messages import event_headers, order
from benchmarks.subjects.meter import Latencies, Meter
from benchmarks.subjects.options import Options, options
from benchmarks.subjects.prefill import proto_body

#: Rows that are inserted at once.
WINDOW = 500


async def protoflow(chosen: Options, url: str, meter: Meter) -> None:
    """A service."""
    from protoflow import Service

    from_here = replace(chosen, url=url)
    shape = "transform" if chosen.shape == "transform" else "consume"
    service = Service(ours.config(from_here))
    service.register(ours.handler(shape, meter, Latencies(0, 0)))

    def published() -> int:
        return sum(stats.published for stats in service.stats().values())

    await ours.fill(from_here)
    async with deployed(service):
        await (meter.follow(published) if shape == "transform" else meter.done.wait())


async def raw(chosen: Options, url: str, meter: Meter) -> None:
    """A table of rows: 500 are claimed, their outputs written and they deleted, in one
    transaction."""
    import asyncpg
    from bench.v1.orders_pb2 import Handled, Order

    connection: Any = await asyncpg.connect(url)
    for table in ("orders", "handled"):
        await connection.execute(
            f"CREATE TABLE {table} (id bigserial PRIMARY KEY, body bytea, headers text[])"
        )
    headers = [text for pair in event_headers().items() for text in pair]
    rows = [(proto_body(number), headers) for number in range(chosen.total)]
    await connection.copy_records_to_table("orders", records=rows, columns=("body", "headers"))
    while not meter.done.is_set():
        async with connection.transaction():
            claimed = await connection.fetch(_CLAIM, WINDOW)
            orders = [Order.FromString(row["body"]) for row in claimed]
            outputs = [
                (Handled(order_id=one.order_id, cents=one.cents).SerializeToString(), headers)
                for one in orders
            ]
            await connection.copy_records_to_table(
                "handled", records=outputs, columns=("body", "headers")
            )
            await connection.execute(
                "DELETE FROM orders WHERE id = ANY($1)", [row["id"] for row in claimed]
            )
        for _ in claimed:
            meter.tick()
    await connection.close()


_CLAIM = """
SELECT id, body, headers FROM orders ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED
"""
_FILL = """
SELECT protoflow.publish(array_agg(t), array_agg(b), array_agg(i), array_agg(k),
  array_agg('["m",{}]'::text), array_agg('x'::bytea), array_agg(0::float8))
FROM (SELECT protoflow.topic_id('orders') AS t) AS topic, LATERAL (
  SELECT n % 64 AS b, 'm'::bytea AS i, convert_to('k' || n % 10000, 'UTF8') AS k
  FROM generate_series($1::int, $2::int) AS g(n)) AS row
"""


async def per_key(chosen: Options, url: str, meter: Meter) -> None:
    """A service that handles 10,000 keys, each in order, with a backlog behind what is measured."""
    import asyncpg
    from protoflow import Config, Context, Message, Service
    from protoflow.contract.spec import DeliveryPolicy, Ordering

    async def count(message: Message, context: Context) -> None:
        meter.tick()

    service = Service(Config(transport=url, max_in_flight=2000), lifespan=lambda _: filled())
    policy = DeliveryPolicy(ordering=Ordering.PER_KEY)
    service.register_message_handler("count", "orders", count, delivery=policy)

    @asynccontextmanager
    async def filled() -> AsyncIterator[None]:
        connection: Any = await asyncpg.connect(url)
        total = chosen.total + chosen.backlog
        for start in range(0, total, 10_000):
            await connection.execute(_FILL, start, min(start + 10_000, total) - 1)
        await connection.execute("ANALYZE protoflow.log")
        await connection.close()
        yield

    async with deployed(service):
        await meter.done.wait()


async def pgqueuer(chosen: Options, url: str, meter: Meter) -> None:
    """Batches of 500."""
    import asyncpg
    from bench.v1.orders_pb2 import Order
    from pgqueuer import PgQueuer
    from pgqueuer.queries import Queries

    pool: Any = await asyncpg.create_pool(url, min_size=2, max_size=8)
    queries = Queries.from_asyncpg_pool(pool)
    await queries.install()
    for start in range(0, chosen.total, WINDOW):
        size = min(WINDOW, chosen.total - start)
        bodies: Any = [proto_body(number) for number in range(start, start + size)]
        await queries.enqueue(["count"] * size, bodies, [0] * size)
    queue = PgQueuer.from_asyncpg_pool(pool)

    @queue.entrypoint("count")
    async def count(job: Any) -> None:
        Order.FromString(job.payload)
        meter.tick()

    running = asyncio.create_task(queue.run(batch_size=500))
    await asyncio.wait(
        [running, asyncio.create_task(meter.done.wait())], return_when="FIRST_COMPLETED"
    )
    queue.shutdown.set()
    await running
    await pool.close()


async def procrastinate(chosen: Options, url: str, meter: Meter) -> None:
    """Twenty jobs at once."""
    from procrastinate import App, PsycopgConnector

    logging.getLogger("procrastinate").setLevel(logging.ERROR)
    app = App(connector=PsycopgConnector(conninfo=url))

    @app.task(name="count")
    async def count(**order: object) -> None:
        meter.tick()

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for start in range(0, chosen.total, WINDOW):
            numbers = range(start, min(start + WINDOW, chosen.total))
            await count.batch_defer_async(*(order(number) for number in numbers))
        running = asyncio.create_task(
            app.run_worker_async(
                concurrency=20, install_signal_handlers=False, delete_jobs="always"
            )
        )
        await asyncio.wait(
            [running, asyncio.create_task(meter.done.wait())], return_when="FIRST_COMPLETED"
        )
        running.cancel()
        await asyncio.wait([running])


QUEUES = {
    "per-key": per_key,
    "ours": protoflow,
    "raw": raw,
    "pgqueuer": pgqueuer,
    "procrastinate": procrastinate,
}


async def main(chosen: Options) -> None:
    """Runs the subject."""
    meter = Meter(chosen.count, chosen.warm, chosen.run)
    async with AsyncExitStack() as around:
        url = await around.enter_async_context(database(chosen.url, chosen.run))
        if chosen.shape == "held":
            await around.enter_async_context(held_transaction(url))
        await QUEUES[chosen.transport](chosen, url, meter)
    meter.report()


if __name__ == "__main__":
    chosen = options()
    if chosen.transport == "pgqueuer":
        import uvloop

        uvloop.run(main(chosen))
    else:
        asyncio.run(main(chosen))
