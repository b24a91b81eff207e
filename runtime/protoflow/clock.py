"""The one source of time and randomness.

All waits use asyncio (`asyncio.sleep`, `call_later`), so they are virtual on a loop with virtual
time, such as that of `protoflow.testing`.
"""

from __future__ import annotations

import asyncio
import random
import time


class Clock:
    """The system clock. Tests replace it.

    Attributes:
        virtual: whether time is virtual. If it is, the runtime starts no periodic checks.
    """

    virtual = False

    def now(self) -> float:
        """The time in seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """A time in seconds that never goes back."""
        return time.monotonic()

    def random(self) -> float:
        """A number from 0 up to 1."""
        return random.random()  # noqa: S311  jitter, not a secret

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        await asyncio.sleep(seconds)
