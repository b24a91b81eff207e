"""A service that dies of one message, for the tests: prints what it starts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "runtime"))

from protoflow.message import Delivery, Settlement
from protoflow.transport import SubscriptionSettings, TransportSettings
from protoflow.transports import kafka
from protoflow.url import TransportURL


class Listener:
    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None: ...

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None: ...

    def health_changed(self, healthy: bool, detail: str) -> None: ...


async def main(url: str, topic: str, options: str) -> None:
    transport = kafka.create(
        TransportSettings(url=TransportURL.parse(url), options=json.loads(options))
    )
    await transport.open()
    wanted = SubscriptionSettings(name=topic, topic=topic, group="billing", defers=False)
    subscription = await transport.subscribe(wanted, Listener())
    while True:
        batch = await subscription.receive(100, 1 << 20)
        for delivery in batch:
            name = (delivery.message.payload or b"").decode()
            print(json.dumps([name, delivery.deliveries]), flush=True)
            if name == "killer":
                os._exit(9)
            await asyncio.sleep(0.01)
        await subscription.settle([Settlement(delivery) for delivery in batch])


asyncio.run(main(*sys.argv[1:]))
