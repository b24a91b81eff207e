"""What the process uses: CPU, memory, tasks. Measured when read."""

from __future__ import annotations

import asyncio
import os
import time

from protoflow.dataclass_record import dataclass_record

#: A share of CPU over less time says nothing; readers in between get the last one.
_SHORTEST = 0.1


@dataclass_record
class ResourceUsage:
    """What the process uses.

    Attributes:
        cpu_percent: since the previous reading; 100 is one core.
        memory_bytes: the resident memory.
        tasks: tasks of the event loop.
    """

    cpu_percent: float = 0.0
    memory_bytes: int = 0
    tasks: int = 0


class ResourceMeter:
    """Reads what the process uses."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = time.process_time()
        self._percent = 0.0

    def read(self) -> ResourceUsage:
        """What the process uses; CPU since the reading before."""
        wall, cpu = time.monotonic(), time.process_time()
        if wall - self._wall >= _SHORTEST:
            self._percent = 100.0 * (cpu - self._cpu) / (wall - self._wall)
            self._wall, self._cpu = wall, cpu
        return ResourceUsage(
            cpu_percent=self._percent, memory_bytes=_memory(), tasks=_running_tasks()
        )


def _memory() -> int:
    try:
        with open("/proc/self/statm", "rb") as file:  # Linux: pages, the second is resident
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _peak_memory()


def _peak_memory() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB everywhere else (getrusage(2)).
    return peak if os.uname().sysname == "Darwin" else peak * 1024


def _running_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # read from another thread
        return 0
