"""Publishes orders: python publish.py [NUMBER]."""

from __future__ import annotations

import asyncio
import sys

import protoflow
from service import config
from shop.v1.orders_pb2 import OrderPlaced
from shop.v1.orders_protoflow import OrdersEventProducer


async def main(count: int) -> None:
    settings = config()
    async with protoflow.connect(transport=settings.transport) as publisher:
        ids = await OrdersEventProducer(publisher).publish_order_placed_many(
            OrderPlaced(
                order_id=f"order-{number}",
                email=f"customer-{number}@example.org",
                lines=[OrderPlaced.Line(sku="lamp", quantity=1 + number % 3, cents=1990)],
            )
            for number in range(count)
        )
    print(f"published {len(ids)} orders to {settings.url.safe}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
