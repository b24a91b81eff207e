"""What a viewer costs: CPU of a service at a steady rate, with one viewer and with none.

`python -m tests.dashboard.cost --seconds 60 --runs 5` prints the medians and their difference, as a
share of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from typing import Any

from aiohttp import ClientSession
from google.protobuf.wrappers_pb2 import StringValue
from protoflow import Config, Service
from protoflow.output import Output

from tests.middleware.harness import TO_WORK, nothing, worker

_RATE, _BATCH = 1000, 50


def _serve(pipe: Any, seconds: float) -> None:
    asyncio.run(_measure(pipe, seconds))


async def _measure(pipe: Any, seconds: float) -> None:
    service = Service(Config(environ={}, transport="memory://"))
    service.register(worker(nothing))
    async with service:
        pipe.send(await service.start_web_ui(0))
        await asyncio.to_thread(pipe.recv)
        cpu, started = time.process_time(), time.monotonic()
        outputs = [Output(StringValue(value="x")) for _ in range(_BATCH)]
        for number in range(int(seconds * _RATE / _BATCH)):
            await service.publish_outputs(TO_WORK, outputs)
            await asyncio.sleep(max(0.0, started + number * _BATCH / _RATE - time.monotonic()))
        spent = time.process_time() - cpu
        took = time.monotonic() - started
        pipe.send((spent / took, int(seconds * _RATE) / took))


async def _run(seconds: float, viewer: bool) -> tuple[float, float]:
    """The share of a core that a service takes, in per cent, and messages a second."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs, seconds))
    process.start()
    port = await asyncio.to_thread(ours.recv)
    async with ClientSession() as session:
        watching = asyncio.create_task(_watch(session, port)) if viewer else None
        ours.send("go")
        spent, rate = await asyncio.to_thread(ours.recv)
        if watching is not None:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
    await asyncio.to_thread(process.join)
    return 100 * spent, rate


async def _watch(session: ClientSession, port: int) -> None:
    async with session.get(f"http://127.0.0.1:{port}/api/v1/stream") as answer:
        async for _ in answer.content.iter_any():
            pass


async def _main(seconds: float, runs: int) -> None:
    found: dict[bool, list[float]] = {False: [], True: []}
    rates: list[float] = []
    for _ in range(runs):
        for viewer in (False, True):
            share, rate = await _run(seconds, viewer)
            found[viewer].append(share)
            rates.append(rate)
    without, with_one = (statistics.median(found[viewer]) for viewer in (False, True))
    print(f"messages a second: {min(rates):.0f} to {max(rates):.0f}")
    print("without a viewer:", ", ".join(f"{one:.2f} %" for one in found[False]))
    print("with one viewer: ", ", ".join(f"{one:.2f} %" for one in found[True]))
    print(f"median {without:.2f} % and {with_one:.2f} % of a core: {with_one - without:+.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    asyncio.run(_main(given.seconds, given.runs))
