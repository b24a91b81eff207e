"""A function that is called at an interval."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from protoflow.errors import ProtoflowError
from protoflow.transport.kit.supervisor import describe

_log = logging.getLogger("protoflow.transport.kit")


class Periodic:
    """Calls a function at an interval until it is stopped; no exception ends it.

    Args:
        interval: seconds between the end of a call and the next call.
        call: the function.

    Attributes:
        problem: why the last call failed; None if it succeeded.
    """

    def __init__(self, interval: float, call: Callable[[], Awaitable[object]]) -> None:
        self.problem: str | None = None
        self._interval = interval
        self._call = call
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Starts; the first call is made after the interval."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Cancels a call that is under way. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            try:
                await self._call()
            except Exception as error:
                self.problem = describe(error)
                if not isinstance(error, ProtoflowError):
                    _log.exception("a periodic call failed")
            else:
                self.problem = None
