"""SIGTERM and SIGINT while a service runs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


@contextlib.contextmanager
def handled_signals(called: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Calls on SIGTERM and SIGINT; afterwards restores the previous handlers."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def fallback(number: int, _frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(called, signal.Signals(number))

    for number in numbers:
        try:
            loop.add_signal_handler(number, called, number)
        except NotImplementedError:  # Windows
            signal.signal(number, fallback)
    try:
        yield
    finally:
        for number in numbers:
            with contextlib.suppress(NotImplementedError):
                loop.remove_signal_handler(number)
            signal.signal(number, before[number])
