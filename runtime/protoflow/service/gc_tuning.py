"""How often Python looks for garbage while a service runs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collected_rarely(threshold: int) -> Iterator[None]:
    """Within, Python looks for garbage when so many objects are new, not 700 or 2,000, and never
    among those that were there before.

    Messages on their way look like what lives long: they survive the first collections, and are
    looked at again and again, for up to a quarter of what a message costs. Garbage in cycles
    stays a little longer. The settings are those of the process
    (https://docs.python.org/3/library/gc.html), so they come back on leaving; what somebody
    has frozen before, as before a fork, stays frozen.

    Args:
        threshold: how many; 0, or fewer than what is set, changes nothing.
    """
    before = gc.get_threshold()
    if not gc.isenabled() or threshold <= before[0] or not before[0]:
        yield
        return
    ours = not gc.get_freeze_count()  # Python unfreezes all or nothing
    if ours:
        gc.collect()
        gc.freeze()
    gc.set_threshold(threshold, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if ours:
            gc.unfreeze()
