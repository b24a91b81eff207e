"""A signal that wakes receivers."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class WakeSignal:
    """Wakes receivers: at once, later, or from another thread.

    A receiver calls `clear`, looks for messages, and then awaits `wait`. A `wake` between `clear`
    and `wait` is not missed. The signal belongs to the event loop and the thread that created it.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._alarm: tuple[float, asyncio.TimerHandle] | None = None
        self.waiting = False

    def wake(self) -> None:
        """Ends every `wait`, and the next one unless `clear` is called before. Any thread may call
        it."""
        event = self._event
        if event.is_set():
            return
        if threading.get_ident() == self._thread:
            event.set()
        else:
            with contextlib.suppress(RuntimeError):  # that loop was closed
                self._loop.call_soon_threadsafe(event.set)

    def wake_after(self, seconds: float) -> None:
        """Wakes after some seconds; of several calls, the earliest counts."""
        due, alarm = self._loop.time() + max(0.0, seconds), self._alarm
        if alarm is not None:
            if alarm[0] <= due:
                return
            alarm[1].cancel()
        self._alarm = (due, self._loop.call_at(due, self._ring))

    def clear(self) -> None:
        """Forgets earlier calls of `wake`."""
        self._event.clear()

    async def wait(self) -> None:
        """Waits for a `wake` since the last `clear`."""
        self.waiting = True
        try:
            await self._event.wait()
        finally:
            self.waiting = False

    def close(self) -> None:
        """Cancels the timer and wakes all receivers."""
        if self._alarm is not None:
            self._alarm[1].cancel()
            self._alarm = None
        self.wake()

    def _ring(self) -> None:
        self._alarm = None
        self._event.set()
