"""The resources of the process: CPU, memory, tasks. They are measured when read."""

from __future__ import annotations

import asyncio
import os
import time

from protoflow.dataclass_record import dataclass_record

#: A CPU share over a shorter time is meaningless; earlier readers get the last value.
_SHORTEST = 0.1


@dataclass_record
class ResourceUsage:
    """The resources that the process uses.

    Attributes:
        cpu_percent: the CPU use since the previous reading; 100 is one core.
        memory_bytes: the resident memory.
        tasks: tasks of the event loop.
    """

    cpu_percent: float = 0.0
    memory_bytes: int = 0
    tasks: int = 0


class ResourceMeter:
    """Measures the resources that the process uses."""

    def __init__(self) -> None:
        self._wall = time.monotonic()
        self._cpu = time.process_time()
        self._percent = 0.0

    def read(self) -> ResourceUsage:
        """Returns the resources in use; CPU since the previous reading."""
        wall, cpu = time.monotonic(), time.process_time()
        if wall - self._wall >= _SHORTEST:
            self._percent = 100.0 * (cpu - self._cpu) / (wall - self._wall)
            self._wall, self._cpu = wall, cpu
        return ResourceUsage(
            cpu_percent=self._percent, memory_bytes=_memory(), tasks=_running_tasks()
        )


def _memory() -> int:
    try:
        # Linux: the values are pages, and the second is the resident memory
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return _peak_memory()


def _peak_memory() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The unit is bytes on macOS and KiB on other systems (getrusage(2)).
    return peak if os.uname().sysname == "Darwin" else peak * 1024


def _running_tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # the value may be read from another thread
        return 0
