"""Virtual time for tests of the kit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from protoflow.testing import VirtualClock, VirtualTime


@contextmanager
def virtual_time() -> Iterator[VirtualClock]:
    """Makes the time of the running loop virtual."""
    time = VirtualTime()
    time.install()
    try:
        yield VirtualClock(time)
    finally:
        time.remove()
