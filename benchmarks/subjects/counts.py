"""What a message costs in numbers that no other program disturbs.

Bytecode instructions executed in Python for each message published and each message handled,
through the whole default chain on the memory transport; and blocks of memory for each message
that waits, and for each that was handled and should have left none.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from collections.abc import Awaitable, Callable
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


async def main() -> None:
    """Publishes while the handlers are paused, then handles; both counted."""
    from bench.v1.orders_pb2 import Order
    from bench.v1.orders_protoflow import OrdersEventProducer, SinkHandler

    seen = wanted = 0
    done = asyncio.Event()

    class Sink(SinkHandler):
        async def count(self, message: Order, context: Context, /) -> None:
            nonlocal seen
            seen += 1
            if seen == wanted:
                done.set()

    service = Service(Config(transport="memory://", variables={"run": "counts"}, environ={}))
    service.register(Sink())
    name = "bench.v1.Sink.Count"

    async def publish(count: int) -> None:
        producer = OrdersEventProducer(service)
        beside = metadata("untraced")
        for start in range(0, count, WINDOW):
            await producer.publish_order_many(
                Output(Order(**order(number)), metadata=beside)
                for number in range(start, start + WINDOW)
            )

    async def handle() -> None:
        service.resume(name)
        await done.wait()

    async def settled() -> None:
        service.pause(name)
        for _ in range(50):
            await asyncio.sleep(0.001)

    instructions = Instructions()
    async with service:
        figures: dict[str, float] = {}
        for count in (WARM, COUNT):
            wanted += count
            done.clear()
            await settled()
            before = blocks()
            published = await instructions.of(lambda: publish(count))  # noqa: B023
            waiting = blocks()
            handled = await instructions.of(handle)
            await settled()
            figures = {
                "publish": published / count,
                "handle": handled / count,
                "waiting": (waiting - before) / count,
                "left": (blocks() - before) / count,
            }
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
