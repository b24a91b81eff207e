"""Publishes to core NATS from a process of its own: `... URL SUBJECT COUNT KIND MODE`."""

from __future__ import annotations

import asyncio
import sys

import nats

from benchmarks.meter import order, traceparent
from benchmarks.raw import HEADERS


async def main(url: str, subject: str, count: str, kind: str, mode: str) -> None:
    from bench.v1.orders_pb2 import Order

    connection = await nats.connect(url)
    if kind == "json":
        from benchmarks.faststream_subject import body, headers

        sent, payload = headers(mode), body(1)
    else:
        sent = {name.replace("ce_", "ce-"): value for name, value in HEADERS.items()}
        sent["ce-datacontenttype"] = sent.pop("content-type")
        sent["traceparent"] = traceparent(mode)
        payload = Order(**order(1)).SerializeToString()
    for number in range(int(count)):
        await connection.publish(subject, payload, headers=sent)
        if number % 500 == 0:
            await connection.flush()
            # Slower than any subject drops messages, faster than it measures nothing.
            await asyncio.sleep(0.02)
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:6]))
