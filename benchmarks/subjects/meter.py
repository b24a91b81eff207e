"""What counts messages: CPU and time per message, or latencies."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from benchmarks.subjects import server_cpu


class Meter:
    """CPU of this process and wall time between the warm-up and the last message.

    Args:
        database: of the server whose CPU is measured too; empty for none.
    """

    def __init__(self, count: int, warm: int, database: str = "") -> None:
        self.warm = warm
        self.last = warm + count
        self.seen = 0
        self.done = asyncio.Event()
        self._cpu = self._wall = 0.0
        self._from = 0
        self._database = database
        self._server: dict[int, float] = {}
        self.result: dict[str, float] = {}

    def tick(self) -> None:
        """A message was handled."""
        self.seen += 1
        if self.seen == self.warm:
            self._start()
        elif self.seen == self.last:
            self._end()

    async def follow(self, confirmed: Callable[[], int]) -> None:
        """Counts by a counter instead, for what is done only after the handler."""
        while self.seen < self.last:
            await asyncio.sleep(0.005)
            before, self.seen = self.seen, confirmed()
            if before < self.warm <= self.seen:
                self._start()
        self._end()

    def report(self, **more: Any) -> None:
        """Prints the result for the runner."""
        print(json.dumps({**self.result, **more}), flush=True)

    def _start(self) -> None:
        self._from = self.seen
        if self._database:
            self._server = server_cpu.seconds(self._database)
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def _end(self) -> None:
        cpu, wall = time.process_time() - self._cpu, time.perf_counter() - self._wall
        count = self.seen - self._from
        self.result = {"cpu_us": cpu / count * 1e6, "per_second": count / wall}
        if self._database:
            server = server_cpu.between(self._server, server_cpu.seconds(self._database))
            self.result["server_us"] = server / count * 1e6
        self.done.set()


class Latencies:
    """The time from the call that publishes to the handler, of a paced publisher."""

    def __init__(self, count: int, warm: int) -> None:
        self.warm = warm
        self.last = warm + count
        self.done = asyncio.Event()
        self._taken: list[int] = []

    def stamp(self, sent: str) -> None:
        """A message was handled that was published then; both clocks are the machine's."""
        self._taken.append(time.monotonic_ns() - int(sent))
        if len(self._taken) == self.last:
            self.done.set()

    def report(self) -> None:
        """Prints the result for the runner."""
        taken = sorted(self._taken[self.warm : self.last])
        result = {
            f"p{percent:g}_ms": taken[min(len(taken) - 1, int(len(taken) * percent / 100))] / 1e6
            for percent in (50, 99)
        }
        print(json.dumps({**result, "max_ms": taken[-1] / 1e6}), flush=True)
