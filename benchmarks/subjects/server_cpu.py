"""The CPU of PostgreSQL's processes that work for one database, from `/proc`."""

from __future__ import annotations

import contextlib
from pathlib import Path


def seconds(database: str) -> dict[int, float]:
    """CPU seconds by process: of connections to the database, and of who vacuums it."""
    found: dict[int, float] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            title = (process / "cmdline").read_bytes()
            if title.startswith(b"postgres: ") and f" {database} ".encode() in title + b" ":
                nanoseconds = (process / "schedstat").read_text().split()[0]
                found[int(process.name)] = int(nanoseconds) / 1e9
    return found


def between(before: dict[int, float], after: dict[int, float]) -> float:
    """CPU seconds from one reading to another; what ended meanwhile is left out."""
    return sum(value - before.get(process, 0.0) for process, value in after.items())
