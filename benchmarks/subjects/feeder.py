"""Publishes as many orders as each line of its input says, and answers when they are out.

`... URL RUN KEYS [PARTITIONS]`. A line is `COUNT QUANTITY`; the orders are numbered in `cents`
and go round the keys.
"""

from __future__ import annotations

import asyncio
import sys

from protoflow import Output, connect

WINDOW = 500


async def main(url: str, run: str, keys: int, partitions: int) -> None:
    """Until the input ends."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer

    options = {"partitions": partitions} if url.startswith("kafka") else {}
    number = 0
    async with connect(url, variables={"run": run}, transport_options=options) as publisher:
        producer = OrdersEventProducer(publisher)
        while line := await asyncio.to_thread(sys.stdin.readline):
            count, quantity = map(int, line.split())
            for start in range(0, count, WINDOW):
                size = min(WINDOW, count - start)
                await producer.publish_order_many(
                    Output(Order(order_id=str(n % keys), quantity=quantity, cents=n))
                    for n in range(number, number + size)
                )
                number += size
            print("published", flush=True)


if __name__ == "__main__":
    url, run, keys, *rest = sys.argv[1:]
    asyncio.run(main(url, run, int(keys), int(rest[0]) if rest else 1))
