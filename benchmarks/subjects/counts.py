"""What a message costs in numbers that no other program disturbs.

Bytecode instructions executed in Python for each message published and each message handled,
through the whole default chain on the memory transport; and blocks of memory for each message
that waits, and for each that was handled and should have left none.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from types import FrameType
from typing import Any

from protoflow import Config, Context, Output, Service

from benchmarks.subjects.messages import metadata, order

#: Messages that are counted, those before, and how many go out at once.
COUNT, WARM, WINDOW = 1000, 2000, 100


class Instructions:
    """Counts the instructions of every frame that is entered meanwhile."""

    def __init__(self) -> None:
        self.total = 0

    def _event(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "opcode":
            self.total += 1
        elif event == "call":
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return self._event

    async def of(self, step: Callable[[], Awaitable[None]]) -> float:
        """The instructions of a step."""
        self.total = 0
        sys.settrace(self._event)
        try:
            await asyncio.create_task(_run(step))  # a task of its own: all frames are new
        finally:
            sys.settrace(None)
        return self.total


async def _run(step: Callable[[], Awaitable[None]]) -> None:
    await step()


def blocks() -> int:
    """Blocks of memory that Python has given out."""
    gc.collect()
    return sys.getallocatedblocks()


class Counted:
    """A service whose handler is paused while messages are published."""

    def __init__(self) -> None:
        from bench.v1.orders_pb2 import Order
        from bench.v1.orders_protoflow import OrdersEventProducer, SinkHandler

        counted, self._order = self, Order

        class Sink(SinkHandler):
            async def count(self, message: Order, context: Context, /) -> None:
                counted.tick()

        config = Config(transport="memory://", variables={"run": "counts"}, environ={})
        self.service = Service(config)
        self.service.register(Sink())
        self._producer = OrdersEventProducer(self.service)
        self._left = 0
        self._done = asyncio.Event()

    def tick(self) -> None:
        """A message was handled."""
        self._left -= 1
        if not self._left:
            self._done.set()

    async def settled(self) -> None:
        """Pauses the handler, and gives what runs beside it time to end."""
        self.service.pause("bench.v1.Sink.Count")
        for _ in range(50):
            await asyncio.sleep(0.001)

    async def publish(self, count: int) -> None:
        """Publishes in windows."""
        self._left = count
        self._done.clear()
        beside = metadata("untraced")
        for start in range(0, count, WINDOW):
            await self._producer.publish_order_many(
                Output(self._order(**order(number)), metadata=beside)
                for number in range(start, start + WINDOW)
            )

    async def handle(self) -> None:
        """Handles what was published."""
        self.service.resume("bench.v1.Sink.Count")
        await self._done.wait()


def even_time() -> Callable[[], float]:
    """A clock that each look moves by 20 us. A new millisecond costs instructions for ids and
    times, and how many of them pass would depend on the machine."""
    return itertools.count(time.time(), 20e-6).__next__


async def main() -> None:
    """Counts the second time; the first makes everything warm."""
    time.time = even_time()
    counted, instructions = Counted(), Instructions()
    figures: dict[str, float] = {}
    async with counted.service:
        for count in (WARM, COUNT):
            await counted.settled()
            before = blocks()
            published = await instructions.of(partial(counted.publish, count))
            waiting = blocks()
            handled = await instructions.of(counted.handle)
            await counted.settled()
            figures = {
                "publish": published / count,
                "handle": handled / count,
                "waiting": (waiting - before) / count,
                "left": (blocks() - before) / count,
            }
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
