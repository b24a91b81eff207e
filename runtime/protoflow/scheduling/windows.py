"""Publishing the outputs of a stream, window by window."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from protoflow.clock import Clock
from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.publishing.output_routes import OutputRoutes
from protoflow.publishing.submitter import Submitter, refusal, unconfirmed
from protoflow.scheduling.watchdog import UNCONFIRMED
from protoflow.transport.interface import Capabilities
from protoflow.transport.kit.backoff import Backoff

#: A window is full with this many messages or this many bytes. A window waits for the confirmation
#: of the one before it, so small windows would wait once for every few messages.
MESSAGES = 512
BYTES = 1024 * 1024

#: Waits before a window is published again, in seconds.
_FIRST_WAIT = 0.1
_LONGEST_WAIT = 5.0

#: Publishes now and returns when all messages are confirmed; raises PublishError.
PublishNow: TypeAlias = Callable[[Sequence[Message]], Awaitable[None]]


class Windows:
    """Publishes one window while the handler produces the next."""

    def __init__(self, publish_now: PublishNow) -> None:
        self._publish_now = publish_now
        self._last: asyncio.Future[None] | None = None

    async def send(self, messages: Sequence[Message]) -> None:
        """Publishes a window after the previous one is confirmed. Raises its PublishError."""
        await self.confirmed()
        self._last = asyncio.ensure_future(self._publish_now(messages))

    async def confirmed(self) -> None:
        """Waits for the last window. Raises its PublishError."""
        if self._last is not None:
            # The task is shielded: a cancelled run must not cancel the transport's work.
            await asyncio.wait((self._last,))
            last, self._last = self._last, None
            last.result()

    def forget(self) -> None:
        """Stops repeating the last window after a failed run, which makes its outputs again."""
        if self._last is not None:
            self._last.cancel()
            self._last.add_done_callback(lambda last: last.cancelled() or last.exception())


class WindowPublisher:
    """Publishes windows. Messages that the broker does not store are published again with the same
    ids until it does: an outage does not fail the run. Only a refusal is raised.

    Args:
        submitter: publishes.
        capabilities: the limits of the broker.
        on_confirmed: called with a confirmed window.
        clock: time.
        mark_late: called with the reason if a window waits for long, and with None afterwards.
    """

    def __init__(
        self, submitter: Submitter, capabilities: Capabilities,
        on_confirmed: Callable[[Sequence[Message]], None], clock: Clock,
        mark_late: Callable[[str | None], None],
    ) -> None:  # fmt: skip
        self._submitter = submitter
        self._capabilities = capabilities
        self._on_confirmed = on_confirmed
        self._clock = clock
        self._mark_late = mark_late
        self._late = 0

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publishes a window; returns when all is confirmed. Raises PublishRefusedError."""
        if (refused := refusal(messages, self._capabilities)) is not None:
            raise refused
        left = messages
        backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)
        began = self._clock.monotonic()
        late = False
        try:
            while True:
                left, error = unconfirmed(left, await self._submitter.publish_shielded(left))
                if error is None:
                    break
                if isinstance(error, PublishRefusedError):
                    raise error
                if not late and self._clock.monotonic() - began > UNCONFIRMED:
                    late = True
                    self._late += 1
                    self._mark_late(f"the outputs of a stream are not confirmed: {error}")
                await asyncio.sleep(backoff.next())
        finally:
            if late:
                self._late -= 1
                if not self._late:
                    self._mark_late(None)
        self._on_confirmed(messages)


class RoutedWindowPublisher:
    """Publishes windows whose messages go to several transports.

    Args:
        routes: divides a window by transport.
        publishers: publish the shares, by transport.
    """

    def __init__(self, routes: OutputRoutes, publishers: Mapping[str, WindowPublisher]) -> None:
        self._routes = routes
        self._publishers = publishers

    async def publish(self, messages: Sequence[Message]) -> None:
        """Publishes a window; returns when all is confirmed. Raises PublishRefusedError."""
        shares = self._routes.shares(messages).items()
        tasks = [
            asyncio.ensure_future(self._publishers[name].publish(share)) for name, share in shares
        ]
        try:
            await asyncio.gather(*tasks)
        finally:  # a refusal fails the run, so the other shares are not repeated
            for task in tasks:
                task.cancel()
