"""A supervised connection that reconnects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from protoflow.clock import Clock
from protoflow.errors import ProtoflowError
from protoflow.transport.kit.backoff import Backoff

T = TypeVar("T")
_log = logging.getLogger("protoflow.transport.kit")


class Supervisor(Generic[T]):
    """Reconnects until it is stopped; no exception ends it.

    Args:
        connect: makes a connection, or raises.
        watch: returns the reason as text, or raises, when the connection is lost.
        up: called with every connection except the first, which the caller made.
        down: called with the reason when the connection is lost, and after each failed attempt to
            reconnect.
        clock: sleeps between attempts.
        backoff: the waits between attempts.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[T]],
        watch: Callable[[T], Awaitable[str]],
        *,
        up: Callable[[T], object],
        down: Callable[[str], object],
        clock: Clock,
        backoff: Backoff,
    ) -> None:
        self._connect = connect
        self._watch = watch
        self._up = up
        self._down = down
        self._clock = clock
        self._backoff = backoff
        self._task: asyncio.Task[None] | None = None

    def start(self, connection: T) -> None:
        """Starts watching a connection."""
        self._task = asyncio.get_running_loop().create_task(self._run(connection))

    async def stop(self) -> None:
        """Stops watching, and leaves the connection open. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self, connection: T) -> None:
        while True:
            try:
                reason = await self._watch(connection)
            except Exception as error:
                reason = describe(error)
            self._end_if_stopped()
            self._report(self._down, reason)
            connection = await self._connected()
            self._end_if_stopped()
            self._backoff.reset()
            self._report(self._up, connection)

    async def _connected(self) -> T:
        while True:
            await self._clock.sleep(self._backoff.next())
            try:
                return await self._connect()
            except Exception as error:  # a refusal may be temporary
                self._end_if_stopped()
                self._report(self._down, describe(error))

    def _end_if_stopped(self) -> None:
        """A client library may have taken the cancellation for the end of the connection."""
        if self._task is not asyncio.current_task():
            raise asyncio.CancelledError

    def _report(
        self, callback: Callable[[T], object] | Callable[[str], object], value: T | str
    ) -> None:
        try:
            callback(value)  # type: ignore[arg-type]  # each callback gets its own type
        except Exception:  # an error must not end the supervision
            _log.exception("a callback of a supervised connection failed")


def describe(error: BaseException) -> str:
    """Returns the text of an error, with its type unless it is one of Protoflow's."""
    text = str(error)
    if isinstance(error, ProtoflowError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
