"""How long a service with many handlers takes to start: `... memory|sqlite - --count HANDLERS`."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time

from protoflow import Config, Context, Service

from benchmarks.subjects.options import Options, options


async def main(chosen: Options) -> None:
    """Registers, each handler on a topic and in a group of its own, and starts."""
    from bench.v1.orders_pb2 import Order

    async def handler(message: Order, context: Context) -> None: ...

    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/queue.db" if chosen.transport == "sqlite" else "memory://"
        cpu, wall = time.process_time(), time.perf_counter()
        service = Service(Config(transport=url))
        for number in range(chosen.count):
            service.register_proto_handler(f"handler-{number}", f"topic.{number}", Order, handler)
        async with service:
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    print(json.dumps({"wall_ms": wall * 1000, "cpu_ms": cpu * 1000}))


if __name__ == "__main__":
    asyncio.run(main(options()))
