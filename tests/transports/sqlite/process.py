"""A process of its own for the sqlite tests: `publish` or `consume`, until it is killed.

Every line on standard output is something that was confirmed.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time

from protoflow.contract.spec import Ordering
from protoflow.message import Message, Settlement, SettleResult

from tests.transports.harness import Listener, opened, settings

KEYS = 5


def key_of(number: int) -> bytes:
    return b"%d" % (number % KEYS)


def say(*words: object) -> None:
    print(*words, flush=True)


async def publish(url: str) -> None:
    async with opened(url) as transport:
        for start in itertools.count(step=7):
            batch = [
                Message(id=str(number), topic="t", payload=bytes(200), key=key_of(number))
                for number in range(start, start + 7)
            ]
            assert not any(await transport.submit(batch))
            for message in batch:
                say(message.id)


async def consume(url: str) -> None:
    async with opened(url) as transport:
        subscription = await transport.subscribe(
            settings(ordering=Ordering.PER_KEY, lease=1.0), Listener()
        )
        say("ready")
        while True:
            for delivery in await subscription.receive(5, 1 << 20):
                handled = time.monotonic_ns()  # the same clock in every process
                await asyncio.sleep(0.001)
                (result,) = await subscription.settle([Settlement(delivery)])
                assert result is SettleResult.DONE
                say(handled, delivery.message.id)


if __name__ == "__main__":
    asyncio.run({"publish": publish, "consume": consume}[sys.argv[1]](sys.argv[2]))
