"""The ladder: constant waits, for brokers that keep retries in first-in first-out queues.

A wait uses the largest rungs that fit until it is due. It never ends early, and ends late by at
most the smallest rung.
"""

from __future__ import annotations

from collections.abc import Sequence


def rung(ladder: Sequence[float], wait: float) -> float:
    """Returns the largest rung that fits into the wait, or the smallest rung.

    Args:
        ladder: the rungs in seconds, ascending, not empty.
        wait: the time until the message is due, in seconds.
    """
    fitting = [step for step in ladder if step <= wait]
    return fitting[-1] if fitting else ladder[0]
