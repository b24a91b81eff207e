"""The outputs of a stream on their way, window by window."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from protoflow.clock import Clock
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message
from protoflow.scheduling.watchdog import UNCONFIRMED

#: A window is full with so many messages, or so many bytes.
MESSAGES = 64
BYTES = 1024 * 1024

#: Waits before a window is published again, in seconds: doubled from first to last.
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0

Submit: TypeAlias = "Callable[[Sequence[Message]], asyncio.Future[Sequence[PublishError | None]]]"
#: Publishes now and returns when all is confirmed; raises PublishError.
PublishNow: TypeAlias = Callable[[Sequence[Message]], Awaitable[None]]


class Windows:
    """One window is on its way while the handler makes the next."""

    def __init__(self, publish_now: PublishNow) -> None:
        self._publish_now = publish_now
        self._last: asyncio.Future[None] | None = None

    async def send(self, messages: Sequence[Message]) -> None:
        """Publishes a window once the one before is confirmed. Raises that one's PublishError."""
        await self.confirmed()
        self._last = asyncio.ensure_future(self._publish_now(messages))

    async def confirmed(self) -> None:
        """Waits for the last window. Raises its PublishError."""
        if self._last is not None:
            # Not awaited itself: a run that is cancelled must not cancel the transport's work.
            await asyncio.wait((self._last,))
            last, self._last = self._last, None
            last.result()

    def forget(self) -> None:
        """The run failed: the last window is not repeated any more, its outputs are made again."""
        if self._last is not None:
            self._last.cancel()
            self._last.add_done_callback(lambda last: last.cancelled() or last.exception())


def publisher(
    submit: Submit, confirmed: Callable[[Sequence[Message]], None], clock: Clock,
    degrade: Callable[[str | None], None],
) -> PublishNow:  # fmt: skip
    """Publishes windows. What the broker does not take is published again, the same ids, until
    it does: an outage is no failed run. Only a refusal is raised.

    Args:
        submit: publishes.
        confirmed: called with a window that the broker has.
        clock: time.
        degrade: called with the reason when a window waits for long, and with None after.
    """

    late = 0

    async def publish_now(messages: Sequence[Message]) -> None:
        nonlocal late
        left = messages
        wait = _FIRST_WAIT
        began = clock.monotonic()
        told = False
        try:
            while True:
                left, error = await _submit(submit, left)
                if error is None:
                    break
                if isinstance(error, PublishRefusedError):
                    raise error
                if not told and clock.monotonic() - began > UNCONFIRMED:
                    told = True
                    late += 1
                    degrade(f"the outputs of a stream are not confirmed: {error}")
                await asyncio.sleep(wait)
                wait = min(_LONGEST_WAIT, wait * 2)
        finally:
            if told:
                late -= 1
                if not late:
                    degrade(None)
        confirmed(messages)

    return publish_now


async def _submit(
    submit: Submit, messages: Sequence[Message]
) -> tuple[Sequence[Message], Exception | None]:
    """Those from the first that was not taken on, and why."""
    try:
        future = submit(messages)
        await asyncio.wait([future])  # a run that is cancelled must not cancel the transport's work
        if future.cancelled():
            return messages, PublishError("publishing was cancelled: the transport closes")
        errors = future.result()
    except Exception as error:
        return messages, error
    for index, failed in enumerate(errors):
        if failed is not None:
            refused = next((e for e in errors if isinstance(e, PublishRefusedError)), None)
            return messages[index:], refused or failed
    return (), None
