"""A process that receives a message, does some steps of isolation with it, and is killed.

    python -m protoflow.testing.transports.killed_member '{"url": ..., "settings": ..., ...}'

`steps` lists the calls for the first delivery: `isolate`, `mark`, `clear`.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import Any

from protoflow import transports
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.message import Delivery
from protoflow.testing.listener import Listener
from protoflow.testing.transports.harness import MEGABYTE
from protoflow.transport import (
    Isolation,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)


async def take(subscription: Any, steps: list[str]) -> None:
    """Receives the first delivery, from the solo queue if it is there, and does the steps."""
    receiving = asyncio.ensure_future(subscription.receive(1, 64 * MEGABYTE))
    if not steps:
        await receiving
        return
    assert isinstance(subscription, Isolation)
    delivery, found = None, None
    while found is None:
        await asyncio.wait([receiving], timeout=0.05)
        if receiving.done() and delivery is None:
            (delivery,) = receiving.result()
            found = await subscription.isolate(delivery)
        else:
            found = await subscription.isolate(None)
    alone: Delivery = found[0]
    if "mark" in steps:
        await subscription.mark(alone)
    if "clear" in steps:
        await subscription.clear(alone)


async def main(order: dict[str, Any]) -> None:
    """Joins the group, does the steps, and kills this process."""
    fields = {**order["settings"], "ordering": Ordering(order["settings"]["ordering"])}
    fields["dead_letter_topics"] = tuple(fields["dead_letter_topics"])
    settings = SubscriptionSettings(**fields)
    transport = transports.create(
        TransportSettings(url=TransportURL.parse(order["url"]), options=order["options"])
    )
    await transport.open()
    await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
    await take(await transport.subscribe(settings, Listener()), order["steps"])
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
