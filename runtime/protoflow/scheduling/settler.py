"""Settling: outputs confirmed first, then the settlement, all in batches.

Everything that one turn of the event loop produces goes out together: one `submit` and one
`settle`, so a busy service pays for neither per message.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any

from protoflow.errors import PublishError, TransportError
from protoflow.message import Message, Settlement, SettleResult
from protoflow.scheduling.job import Job
from protoflow.transport import Subscription, Transport

_log = logging.getLogger("protoflow.settler")

#: What is called when outputs are confirmed (None) or were not taken.
Confirmed = Callable[[PublishError | None], None]


class Settler:
    """Publishes and settles for one subscription.

    Args:
        transport: publishes outputs.
        subscription: settles.
        settled: called with jobs whose settlements have an answer.
    """

    def __init__(
        self,
        transport: Transport,
        subscription: Subscription,
        settled: Callable[[Sequence[Job], Sequence[SettleResult]], None],
    ) -> None:
        self._transport = transport
        self._subscription = subscription
        self._settled = settled
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._jobs: list[Job] = []
        self._settlements: list[Settlement] = []
        self._outbox: list[tuple[int, Confirmed]] = []
        self._messages: list[Message] = []
        self._pending: set[asyncio.Future[Any]] = set()

    def settle(self, job: Job, settlement: Settlement) -> None:
        """Settles with the next batch."""
        self._jobs.append(job)
        self._settlements.append(settlement)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def publish(self, messages: Sequence[Message], confirmed: Confirmed) -> None:
        """Publishes with the next batch; the order of calls is the order of publishing."""
        self._messages.extend(messages)
        self._outbox.append((len(messages), confirmed))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hands everything to the broker now."""
        self._scheduled = False
        if self._outbox:
            outbox, self._outbox = self._outbox, []
            messages, self._messages = self._messages, []
            try:
                published = self._transport.submit(messages)
            except Exception as error:  # none should, but nothing must hang for it
                published = self._failed(error)
            self._watch(published, lambda done: _confirm(outbox, done))
        if self._settlements:
            jobs, self._jobs = self._jobs, []
            settlements, self._settlements = self._settlements, []
            try:
                settled = self._subscription.settle(settlements)
            except Exception as error:
                settled = self._failed(error)
            self._watch(settled, lambda done: self._answered(jobs, done))

    @property
    def busy(self) -> bool:
        """Whether an answer of the broker is awaited."""
        return bool(self._pending or self._outbox or self._settlements)

    async def drained(self) -> None:
        """Waits until nothing is on its way."""
        while self.busy:
            self.flush()
            if self._pending:
                await asyncio.wait(self._pending)
            await asyncio.sleep(0)  # callbacks of what ended may publish or settle

    def _failed(self, error: Exception) -> asyncio.Future[Any]:
        future = self._loop.create_future()
        future.set_exception(error)
        return future

    def _watch(
        self, future: asyncio.Future[Any], ended: Callable[[asyncio.Future[Any]], None]
    ) -> None:
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        future.add_done_callback(ended)

    def _answered(self, jobs: Sequence[Job], done: asyncio.Future[Any]) -> None:
        error = done.exception() if not done.cancelled() else None
        if done.cancelled() or error is not None:
            if error is not None and not isinstance(error, TransportError):
                _log.error("settling failed: %s: %s", type(error).__name__, error)
            self._settled(jobs, [SettleResult.UNKNOWN] * len(jobs))
        else:
            self._settled(jobs, done.result())


def _confirm(outbox: Sequence[tuple[int, Confirmed]], done: asyncio.Future[Any]) -> None:
    failure: PublishError | None = None
    results: Sequence[PublishError | None] = ()
    if done.cancelled():
        failure = PublishError("publishing was cancelled: the transport closes")
    elif (error := done.exception()) is not None:
        failure = PublishError(f"publishing failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
    else:
        results = done.result()
    at = 0
    for count, confirmed in outbox:
        first = next((result for result in results[at : at + count] if result is not None), failure)
        at += count
        confirmed(first)
