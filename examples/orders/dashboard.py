"""The orders example with failures, for the dashboard: `make demo ARGS=dashboard`.

It runs the service on a SQLite file in a temporary folder and publishes orders until Ctrl-C. For
the first minute the bank refuses every tenth order; some orders are invalid. Look at the failures
and their causes, wait until the bank has reopened the account, and replay. PORT sets the port
(default 8080).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import tempfile
import time
from datetime import datetime

import protoflow

CLOSED_FOR = 60.0
PER_SECOND = 20


class ClosedBank:
    """Refuses every tenth order until it reopens the account; is sometimes slow."""

    def __init__(self) -> None:
        self.opens_at = time.time() + CLOSED_FOR

    async def charge(self, order_id: str, cents: int) -> None:
        await asyncio.sleep(random.expovariate(50))
        number = int(order_id.removeprefix("order-"))
        if number % 10 == 2 and time.time() < self.opens_at:
            opens = datetime.fromtimestamp(self.opens_at).strftime("%H:%M:%S")
            raise RuntimeError(f"the bank closed our account until {opens}")
        if number % 10 == 5 and random.random() < 0.5:
            raise ConnectionError("the bank does not answer")


async def run(port: int) -> None:
    """Serves the dashboard and publishes orders until it is cancelled."""
    from service import service
    from shop.v1.orders_pb2 import OrderPlaced
    from shop.v1.orders_protoflow import OrdersEventProducer

    with tempfile.TemporaryDirectory(prefix="orders-") as directory:
        url = os.environ.get("PROTOFLOW_TRANSPORT", f"sqlite:///{directory}/orders.db")
        config = protoflow.Config(
            transport=url,
            client_name="orders",
            journal=f"{directory}/journal.db",
            journal_successes=True,
            http_port=port,
            http_payloads=True,
            http_publish=True,
        )
        async with service(config, ClosedBank()), protoflow.connect(url) as publisher:
            print(f"\nOpen http://localhost:{port}/ - Ctrl-C ends it", flush=True)
            producer = OrdersEventProducer(publisher)
            for number in itertools.count():
                order = OrderPlaced(order_id=f"order-{number}", email=f"c{number}@example.org")
                if number % 50 != 3:  # orders without lines are invalid
                    order.lines.add(sku="lamp", quantity=1, cents=1990)
                await producer.publish_order_placed(order)
                await asyncio.sleep(random.uniform(0.5, 1.5) / PER_SECOND)


def main() -> None:
    logging.getLogger("protoflow").setLevel(logging.CRITICAL)  # failures are expected
    try:
        asyncio.run(run(int(os.environ.get("PORT", "8080"))))
    except KeyboardInterrupt:
        print("ended")
