"""A process that relays an outbox: `python -m tests.outbox.relay_process OUTBOX LOG`.

What it publishes it appends to the log, each line with its process id. SIGTERM stops it in order.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence

from protoflow import Message
from protoflow.outbox import OutboxRelay, SQLiteOutbox


class Log:
    """A transport whose broker is a file; it confirms a little later."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[list[None]]:
        return asyncio.ensure_future(self._submit(messages))

    async def _submit(self, messages: Sequence[Message]) -> list[None]:
        for message in messages:
            os.write(self._file, f"{os.getpid()} {message.id}\n".encode())
        await asyncio.sleep(0.005)
        return [None] * len(messages)


async def main(outbox: str, log: str) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    store = SQLiteOutbox(outbox)
    try:
        async with OutboxRelay(store, Log(log), poll=0.02):  # type: ignore[arg-type]
            await stopping.wait()
    finally:
        await store.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
