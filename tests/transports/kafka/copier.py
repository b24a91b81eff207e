"""Copies a topic in transactions and dies in the middle, for the tests."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3] / "runtime"))

from protoflow.config.url import TransportURL
from protoflow.message import Delivery, Message, Settlement
from protoflow.transport import SubscriptionSettings, TransportSettings
from protoflow.transports import kafka


class Listener:
    async def shards_revoked(self, shards: Collection[str | int], drain: float) -> None: ...

    def deliveries_lost(self, deliveries: Sequence[Delivery]) -> None: ...

    def health_changed(self, healthy: bool, detail: str) -> None: ...

    def suspects_waiting(self) -> None: ...


async def main(url: str, topic: str, options: str, lives_for: str) -> None:
    transport = kafka.create(
        TransportSettings(url=TransportURL.parse(url), options=json.loads(options))
    )
    await transport.open()
    wanted = SubscriptionSettings(
        name=topic, topic=topic, group="billing", needs_broker_retry=False, atomic=True
    )
    subscription = await transport.subscribe(wanted, Listener())
    asyncio.get_running_loop().call_later(float(lives_for), os._exit, 9)
    held: list[Delivery] = []
    while True:
        held += await subscription.receive(20, 1 << 20)
        random.shuffle(held)  # finished out of turn
        batch = [held.pop() for _ in range(len(held) // 2 + 1)]
        subscription.settle(
            [
                Settlement(
                    delivery,
                    outputs=[
                        Message(
                            id=delivery.message.id,
                            topic=f"{topic}.copy",
                            payload=delivery.message.payload,
                        )
                    ],
                )
                for delivery in batch
            ]
        )
        await asyncio.sleep(0.01)


asyncio.run(main(*sys.argv[1:]))
