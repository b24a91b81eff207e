"""A service in a process of its own, for cases that kill it.

    python -m protoflow.testing.transports.worker '{"settings": {...}, "topic": ..., "log": ...}'

The handler appends `<task> <attempt>` to the file `log` and never returns.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from google.protobuf.wrappers_pb2 import StringValue

from protoflow.config.settings import Config
from protoflow.context import Context
from protoflow.service.service import Service
from protoflow.testing.transports.tasks import task_handler


async def main(order: dict[str, Any]) -> None:
    """Runs the service until the process is killed."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    async def work(task: StringValue, context: Context) -> None:
        os.write(log, f"{task.value} {context.attempt}\n".encode())
        await asyncio.Event().wait()

    service = Service(Config(environ={}, **order["settings"]))
    service.register(task_handler(work, order["topic"], order["group"]))
    await service.run()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
