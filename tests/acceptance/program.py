"""A service in a process of its own, for cases that kill it.

    python -m tests.acceptance.program '{"settings": {...}, "service": "Work", "log": "path", ...}'

`service` is a name or a list of names; `slow` gives some numbers a time of their own. It appends
a line to the log for each event (`ready`, `begin <number> <attempt>`, `end <number> <time>`,
`stopped`); a line is written at once, so a kill loses none.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from typing import Any

from protoflow.config import Config
from protoflow.service import Service

from tests.acceptance.contract import handler, pb


class Log:
    """Lines appended by several processes."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def main(order: dict[str, Any]) -> None:
    """What a test ordered."""
    log = Log(order["log"])
    kills = set(order.get("kills", ()))
    seconds = order.get("seconds", 0.0)
    slow = {int(number): wait for number, wait in order.get("slow", {}).items()}
    before = order.get("before_kill", 0.0)
    names = [order["service"]] if isinstance(order["service"], str) else order["service"]

    async def work(task: Any, context: Any) -> Any:
        log("begin", task.number, context.attempt)
        if task.number in kills:
            await asyncio.sleep(before)
            os.kill(os.getpid(), signal.SIGKILL)
        if wait := slow.get(task.number, seconds):
            await asyncio.sleep(wait)
        log("end", task.number, time.time())
        return pb.Done(number=task.number, key=task.key) if names == ["Transform"] else None

    async def run() -> None:
        service = Service(Config(environ={}, **order["settings"]))
        service.register(*(handler(name, work) for name in names))
        running = asyncio.create_task(service.run())
        while not service.health().ready and not running.done():
            await asyncio.sleep(0.01)
        log("ready", os.getpid())
        await running
        log("stopped", os.getpid())

    asyncio.run(run())


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
