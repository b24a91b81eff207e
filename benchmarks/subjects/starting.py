"""How long a service takes to start: `... memory|sqlite - --count HANDLERS`, or `... kafka URL`.

On Kafka `protoflow run` starts ten handlers, from the interpreter to the first message that it
could handle. It is started twice, and the second start counts: the topics are there then.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time

from protoflow import Config, Context, Service

from benchmarks.subjects.options import Options, options


def started(chosen: Options) -> None:
    """Starts `protoflow run`."""
    environment = {**os.environ, "BENCH_URL": chosen.url, "BENCH_RUN": chosen.run}
    command = [sys.executable, "-m", "protoflow.cli", "run",
               "benchmarks.subjects.ten_handlers", "--log-level", "INFO"]  # fmt: skip
    wall = cpu = 0.0
    for _ in range(2):
        before, begin = _cpu_of_children(), time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, text=True
        )
        output = process.stdout or ()
        if not any("the service started" in line for line in output):
            sys.exit("protoflow run ended before the service started")
        wall = time.perf_counter() - begin
        process.terminate()
        process.communicate()
        cpu = _cpu_of_children() - before
    print(json.dumps({"wall_ms": wall * 1000, "cpu_ms": cpu * 1000}))


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
    chosen = options()
    if chosen.transport == "kafka":
        started(chosen)
    else:
        asyncio.run(main(chosen))
