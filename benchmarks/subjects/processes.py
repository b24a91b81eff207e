"""Several processes in one group: `... kafka|jetstream|sqlite URL --rate PROCESSES`.

They start and take part, the work is published, and only then they may begin, so that the
publisher takes no part of the cores. Measured from a tenth to four fifths of the messages,
while all are busy, with what the rest of the machine used, which is mostly the broker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.subjects.options import Options, options

#: Rounds of hashing 1,000 bytes that make a handler of about a quarter of a millisecond.
MICROSECONDS = 250
TICKS = os.sysconf("SC_CLK_TCK")


def rounds() -> int:
    """How many rounds take so long on this machine when it is quiet."""
    from benchmarks.subjects.worker import work

    best = min(_timed(lambda: work(1000)) for _ in range(5))
    return max(1, round(MICROSECONDS / (best * 1e6 / 1000)))


def _timed(call: Any) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def busy() -> float:
    """Seconds that the cores have worked since boot."""
    user, nice, system, _idle, _wait, irq, soft, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + soft) / TICKS


@dataclass
class Worker:
    """One of the processes, as its lines tell."""

    process: asyncio.subprocess.Process
    takes_part: asyncio.Event = field(default_factory=asyncio.Event)
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    handled: int = 0
    cpu: float = 0.0

    async def listen(self, progress: asyncio.Event) -> None:
        """Reads its lines."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            told = json.loads(line)
            if "ready" in told:
                self.ready.set()
            elif "part" in told:
                self.takes_part.set()
            else:
                self.handled, self.cpu = told["handled"], told["cpu"]
                progress.set()
        assert self.process.stderr is not None
        errors = (await self.process.stderr.read()).decode().split("\n")
        reason = next((line for line in reversed(errors) if line.strip()), "it says nothing")
        raise RuntimeError(f"a worker ended early: {reason}")


async def spawn(module: str, *arguments: object, heard: bool) -> asyncio.subprocess.Process:
    """A program of ours that talks; `heard` keeps its errors, to be read when it has ended."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *map(str, arguments), stdin=pipe, stdout=pipe,
        stderr=pipe if heard else None,
    )  # fmt: skip


async def publish(feeder: asyncio.subprocess.Process, count: int, quantity: int) -> None:
    """Publishes and waits until that is done."""
    assert feeder.stdin is not None
    assert feeder.stdout is not None
    feeder.stdin.write(f"{count} {quantity}\n".encode())
    if not await feeder.stdout.readline():
        raise RuntimeError("the publisher ended early")


async def measure(chosen: Options, url: str, processes: int) -> dict[str, float]:
    """Throughput, and how many cores the workers and all others used."""
    cost = rounds()
    feeder = await spawn(
        "benchmarks.subjects.feeder", url, chosen.run, 1000, chosen.partitions, heard=False
    )
    workers: list[Worker] = []
    progress = asyncio.Event()
    try:
        if chosen.transport != "jetstream":
            await publish(feeder, 1, 0)  # makes the topic with its partitions, or the file
        async with asyncio.TaskGroup() as listeners:  # a worker that ends, ends it all
            heard = []
            for _ in range(processes):
                program = await spawn(
                    "benchmarks.subjects.worker", url, chosen.run, cost, heard=True
                )
                workers.append(Worker(program))
                heard.append(listeners.create_task(workers[-1].listen(progress)))
            start, end = await run(chosen.count, feeder, workers, progress)
            for task in heard:
                task.cancel()
    finally:
        for process in (feeder, *(worker.process for worker in workers)):
            if process.returncode is None:
                process.kill()
            await process.wait()
    handled, wall = end.handled - start.handled, end.time - start.time
    own = (end.own - start.own) / wall
    return {
        "per_second": handled / wall,
        "cpu_us": (end.own - start.own) / handled * 1e6,
        "own_cores": own,
        "other_cores": max(0.0, (end.all - start.all) / wall - own),
    }


@dataclass(frozen=True)
class Moment:
    """What was reached when, and the CPU used until then by the workers and by all."""

    time: float
    handled: int
    own: float
    all: float


async def run(
    count: int,
    feeder: asyncio.subprocess.Process,
    workers: list[Worker],
    progress: asyncio.Event,
) -> tuple[Moment, Moment]:
    """Has the workers take part, publishes, lets them begin; the moments to measure between."""
    for worker in workers:
        await worker.ready.wait()
    while not all(worker.takes_part.is_set() for worker in workers):
        await publish(feeder, 200, 0)
        await asyncio.sleep(0.2)
    await publish(feeder, count, 1)
    for worker in workers:
        assert worker.process.stdin is not None
        worker.process.stdin.write(b"go\n")
    start = await moment(count // 10, workers, progress)
    return start, await moment(count * 4 // 5, workers, progress)


async def moment(count: int, workers: list[Worker], progress: asyncio.Event) -> Moment:
    """When so many messages are handled."""
    while (handled := sum(worker.handled for worker in workers)) < count:
        progress.clear()
        await progress.wait()
    return Moment(time.monotonic(), handled, sum(worker.cpu for worker in workers), busy())


async def main(chosen: Options) -> None:
    """Prints the result."""
    with tempfile.TemporaryDirectory() as directory:
        url = f"sqlite:///{directory}/queue.db" if chosen.transport == "sqlite" else chosen.url
        try:
            print(json.dumps(await measure(chosen, url, chosen.rate)))
        except* RuntimeError as errors:
            sys.exit(str(errors.exceptions[0]))


if __name__ == "__main__":
    asyncio.run(main(options()))
