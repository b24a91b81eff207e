"""Whether memory stays flat: `... sqlite|kafka URL [--count N]`.

Resident memory of the consuming process, read 20 times after a tenth of the messages. They are
published by a process of its own that is never more than a window ahead, so that nothing else
grows.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import tempfile
from pathlib import Path

from protoflow import Config, Context, Service

from benchmarks.subjects.child import child
from benchmarks.subjects.deployed import deployed
from benchmarks.subjects.options import Options, options

#: Messages that the publisher is ahead at most.
AHEAD = 5000
SAMPLES = 20
PAGE_KIB = os.sysconf("SC_PAGE_SIZE") / 1024


def resident() -> float:
    """KiB of this process in memory."""
    gc.collect()  # what is only waiting to be collected is no growth
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_KIB


async def consume(chosen: Options, url: str) -> list[float]:
    """Handles everything; the samples."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import SinkHandler

    warm, step = chosen.count // 10, chosen.count // SAMPLES
    seen, samples = 0, []
    more, done = asyncio.Semaphore(2), asyncio.Event()

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            nonlocal seen
            seen += 1
            if seen % AHEAD == 0:
                more.release()
            if seen > warm and (seen - warm) % step == 0:
                samples.append(resident())
            if seen >= warm + chosen.count:
                done.set()

    service = Service(Config(transport=url, variables={"run": chosen.run}))
    service.register(Sink())
    async with deployed(service):
        with child("benchmarks.subjects.feeder", url, chosen.run, 1000, talks=True) as feeder:
            assert feeder.stdin is not None
            for _ in range((warm + chosen.count + AHEAD - 1) // AHEAD):
                await more.acquire()
                feeder.stdin.write(f"{AHEAD} 1\n")
                feeder.stdin.flush()
            await done.wait()
    return samples


async def main(chosen: Options) -> None:
    """Prints the growth from the first fifth of the samples to the last."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/queue.db" if chosen.transport == "sqlite" else chosen.url
        samples = await consume(chosen, url)
    fifth = len(samples) // 5
    growth = statistics.median(samples[-fifth:]) - statistics.median(samples[:fifth])
    print(json.dumps({"growth_kib": growth, "resident_mib": samples[-1] / 1024}))


if __name__ == "__main__":
    asyncio.run(main(options()))
