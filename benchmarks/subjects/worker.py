"""One process of a group, with handlers that compute: `... URL RUN ROUNDS`.

Orders of quantity 0 only show that this process takes part. Others wait until a line comes in,
then cost so many rounds of hashing each, done before anything else.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time

from protoflow import Config, Context, Service

from benchmarks.subjects.deployed import deployed

#: Messages from one report of the progress to the next.
STEP = 50
BLOCK = bytes(1000)


def work(rounds: int) -> None:
    """The same amount of work each time, however busy the machine is."""
    digest = hashlib.sha256()
    for _ in range(rounds):
        digest.update(BLOCK)


def say(**what: object) -> None:
    """A line for the parent."""
    print(json.dumps(what), flush=True)


async def main(url: str, run: str, rounds: int) -> None:
    """Until the input ends."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import SinkHandler

    go = asyncio.Event()
    handled = 0
    takes_part = False

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            nonlocal handled, takes_part
            if message.quantity == 0:
                if not takes_part:
                    takes_part = True
                    say(part=True)
                return
            await go.wait()
            work(rounds)
            handled += 1
            if handled % STEP == 0:
                say(handled=handled, at=time.monotonic(), cpu=time.process_time())

    service = Service(Config(transport=url, variables={"run": run}, handle_signals=False))
    service.register(Sink())
    async with deployed(service):
        say(ready=True)
        while await asyncio.to_thread(sys.stdin.readline):
            go.set()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
