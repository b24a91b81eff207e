"""A service that dies of one message, for the tests: prints what it starts."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3] / "runtime"))

from protoflow.config.url import TransportURL
from protoflow.message import Delivery, Settlement
from protoflow.transport import SubscriptionSettings, TransportSettings
from protoflow.transports import kafka


class Listener:
    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None: ...

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None: ...

    def health_changed(self, healthy: bool, detail: str) -> None: ...

    def suspects_waiting(self) -> None: ...


async def main(url: str, topic: str, options: str) -> None:
    transport = kafka.create(
        TransportSettings(url=TransportURL.parse(url), options=json.loads(options))
    )
    await transport.open()
    wanted = SubscriptionSettings(
        name=topic, topic=topic, group="billing", needs_broker_retry=False
    )
    subscription: Any = await transport.subscribe(wanted, Listener())
    while True:
        batch = await subscription.receive(100, 1 << 20)
        done: list[Delivery] = []
        for delivery in batch:
            marks = 0
            if delivery.suspect:  # as the runtime does: alone, and on record
                await subscription.settle([Settlement(item) for item in done])
                found = await subscription.isolate(delivery)
                assert found is not None
                marks = found[1]
                await subscription.mark(delivery)
            name = (delivery.message.payload or b"").decode()
            print(json.dumps([name, marks]), flush=True)
            if name == "killer":
                os._exit(9)
            await asyncio.sleep(0.01)
            if delivery.suspect:
                await subscription.clear(delivery)
            done.append(delivery)
        await subscription.settle([Settlement(delivery) for delivery in done])


asyncio.run(main(*sys.argv[1:]))
