"""The one source of time and randomness.

Waits are asyncio's own (`asyncio.sleep`, `call_later`), so a loop whose time is virtual
makes them virtual; `protoflow.testing` has one.
"""

from __future__ import annotations

import asyncio
import random
import time


class Clock:
    """Real time. Replaced in tests.

    Attributes:
        virtual: time jumps to the next timer whenever everything waits, so nothing that looks
            at the service from time to time is started.
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
