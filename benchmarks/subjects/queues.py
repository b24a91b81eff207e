"""Queues in PostgreSQL as the subject: `... ours|pgqueuer|procrastinate URL --run --count --warm`.

Each in a database of its own, filled before anything is consumed, at the settings that were best
for it: pgqueuer on uvloop with batches of 500, procrastinate with 20 jobs at once.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import Any

from benchmarks.subjects import ours
from benchmarks.subjects.databases import database
from benchmarks.subjects.deployed import deployed
from benchmarks.subjects.messages import order
from benchmarks.subjects.meter import Latencies, Meter
from benchmarks.subjects.options import Options, options
from benchmarks.subjects.prefill import proto_body

#: Rows that are inserted at once.
WINDOW = 500


async def protoflow(chosen: Options, url: str, meter: Meter) -> None:
    """A service."""
    from protoflow import Service

    from_here = replace(chosen, url=url)
    service = Service(ours.config(from_here))
    service.register(ours.handler("consume", meter, Latencies(0, 0)))
    await ours.fill(from_here)
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


QUEUES = {"ours": protoflow, "pgqueuer": pgqueuer, "procrastinate": procrastinate}


async def main(chosen: Options) -> None:
    """Runs the subject."""
    meter = Meter(chosen.count, chosen.warm, chosen.run)
    async with database(chosen.url, chosen.run) as url:
        await QUEUES[chosen.transport](chosen, url, meter)
    meter.report()


if __name__ == "__main__":
    chosen = options()
    if chosen.transport == "pgqueuer":
        import uvloop

        uvloop.run(main(chosen))
    else:
        asyncio.run(main(chosen))
