"""Ten thousand keys in flight on the memory transport: `... memory memory:// --mode per_key|none`.

The handlers of all keys run at once and wait; each key's messages must come in order and one by
one, which is checked where the order is asked for: a violation ends the program.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from protoflow import Config, Context, Output, Service
from protoflow.contract.spec import DeliveryPolicy, Ordering

from benchmarks.subjects.deployed import deployed
from benchmarks.subjects.options import Options, options
from benchmarks.subjects.ours import WINDOW

KEYS = 10_000
#: How long a handler waits.
SLEEP = 0.2


class Keys:
    """What is known of each key."""

    def __init__(self, checked: bool) -> None:
        self._checked = checked
        self._next = [0] * KEYS
        self._running = [False] * KEYS
        self.running = self.most = self.violations = 0

    def enter(self, key: int, number: int) -> None:
        """A handler began."""
        if self._checked and (self._running[key] or self._next[key] != number):
            self.violations += 1
        self._running[key] = True
        self._next[key] = number + 1
        self.running += 1
        self.most = max(self.most, self.running)

    def leave(self, key: int) -> None:
        """A handler ended."""
        self._running[key] = False
        self.running -= 1


async def main(chosen: Options) -> None:
    """Prints the CPU for each message."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer, SinkHandler

    known = Keys(chosen.mode == "per_key")
    seen, done = 0, asyncio.Event()

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            nonlocal seen
            key = int(message.order_id)
            known.enter(key, message.cents)
            await asyncio.sleep(SLEEP)
            known.leave(key)
            seen += 1
            if seen == chosen.count:
                done.set()

    cpu = 0.0

    @asynccontextmanager
    async def filled(service: Service) -> AsyncIterator[None]:
        producer = OrdersEventProducer(service)
        for start in range(0, chosen.count, WINDOW):
            await producer.publish_order_many(
                Output(Order(order_id=str(n % KEYS), cents=n // KEYS))
                for n in range(start, start + WINDOW)
            )
        nonlocal cpu
        cpu = time.process_time()
        yield

    config = Config(
        transport="memory://",
        variables={"run": chosen.run},
        defaults=DeliveryPolicy(ordering=Ordering(chosen.mode), concurrency=KEYS),
        max_in_flight=2 * KEYS,
    )
    service = Service(config, lifespan=filled)
    service.register(Sink())
    async with deployed(service):
        await done.wait()
        cpu = time.process_time() - cpu
    if known.violations:
        sys.exit(f"{known.violations} messages out of order")
    if known.most < 0.95 * KEYS:
        sys.exit(f"no more than {known.most} keys in flight")
    print(json.dumps({"cpu_us": cpu / chosen.count * 1e6, "most": known.most}))


if __name__ == "__main__":
    asyncio.run(main(options()))
