"""The threshold of Python's garbage collection while a service runs."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def raised_threshold(threshold: int) -> Iterator[None]:
    """Raises the number of new objects that starts a collection, and excludes old objects.

    Messages in flight survive the first collections and are then scanned repeatedly, which takes up
    to a quarter of the CPU time of a message. As a consequence, garbage in reference cycles lives a
    little longer. The settings belong to the process
    (https://docs.python.org/3/library/gc.html), so they are restored at the end. Objects that were
    frozen earlier, for example before a fork, stay frozen.

    Args:
        threshold: the number of new objects; 0, or less than the current setting, changes nothing.
    """
    before = gc.get_threshold()
    if not gc.isenabled() or threshold <= before[0] or not before[0]:
        yield
        return
    # unfreeze only if no other code had frozen objects, because Python unfreezes all
    ours = not gc.get_freeze_count()
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
