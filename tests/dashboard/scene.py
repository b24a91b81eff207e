"""A service with traffic and failures, for a browser to look at."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from protoflow import Config, Context, Service
from protoflow.output import Output

from tests.middleware.harness import DONE, NAME, TO_DONE, TO_WORK, worker

DONE_NAME = "test.v1.Archive.Take"


class Scene:
    """A running service: what its handler does, and how much of it was done.

    Attributes:
        service: runs.
        base: where its dashboard is.
        broken: whether messages that begin with `bad` fail.
        error: what messages that begin with `evil` fail with.
    """

    def __init__(self) -> None:
        self.service: Service
        self.base = ""
        self.broken = True
        self.error = ""

    async def do(self, message: StringValue, _context: Context) -> Int64Value:
        """Fails for some messages while something is broken."""
        if message.value.startswith("bad") and self.broken:
            raise ValueError("the bank does not answer")
        if message.value.startswith("evil"):
            raise RuntimeError(self.error)
        if message.value.startswith("worse"):
            raise KeyError("no such article")
        return Int64Value(value=len(message.value))

    async def put(self, *values: str) -> list[str]:
        """Publishes work; returns the ids."""
        outputs = [Output(StringValue(value=value)) for value in values]
        return await self.service.publish_outputs(TO_WORK, outputs)

    async def dead(self, count: int) -> None:
        """Waits until so many dead letters were made."""
        stats = self.service.stats()[NAME]
        async with asyncio.timeout(30):
            while stats.dead_lettered < count:
                await asyncio.sleep(0.05)

    async def traffic(self) -> None:
        """Publishes ten messages a second."""
        for number in itertools.count():
            await self.put(f"good {number}")
            await asyncio.sleep(0.1)


async def _take(_message: Int64Value, _context: Context) -> None:
    """Archives."""


@asynccontextmanager
async def running_scene(url: str, directory: Path, **settings: Any) -> AsyncIterator[Scene]:
    """A service with five dead letters and live traffic."""
    scene = Scene()
    given: dict[str, Any] = {
        "namespace": f"d{uuid.uuid4().hex[:8]}", "http_payloads": True, "http_publish": True,
        "client_name": "scene", "journal": str(directory / "journal.db"),
        "journal_successes": True, **settings,
    }  # fmt: skip
    scene.service = Service(Config(environ={}, transport=url, **given))
    scene.service.register(
        worker(scene.do, publication=TO_DONE),
        worker(_take, name=DONE_NAME, input=DONE, group="archive"),
    )
    async with scene.service:
        scene.base = f"http://127.0.0.1:{await scene.service.start_web_ui(0)}/"
        await scene.put("bad 1", "bad 2", "bad 3", "worse 1", "worse 2")
        await scene.dead(5)
        publishing = asyncio.create_task(scene.traffic())
        try:
            yield scene
        finally:
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
