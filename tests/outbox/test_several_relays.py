"""Several relays of one outbox: each key in order, nothing lost, nothing twice without a crash."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from protoflow import Message
from protoflow.outbox import SQLiteOutbox
from protoflow.testing.transports.processes import program_environment

COUNT, KEYS = 300, 5

pytestmark = pytest.mark.timeout(120)


class Outbox:
    """An outbox, what was published of it, and the processes that relay it."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "outbox.db"
        self.log = directory / "published"
        self.log.touch()
        self.store = SQLiteOutbox(self.path)
        self._numbers = itertools.count()
        self._processes: list[asyncio.subprocess.Process] = []

    async def fill(self, count: int) -> None:
        """Stores numbered messages over some keys."""
        await self.store.store(
            [
                Message(id=str(number), topic="t", payload=b"x", key=b"k%d" % (number % KEYS))
                for number in itertools.islice(self._numbers, count)
            ],
            None,
        )

    async def relay(self) -> asyncio.subprocess.Process:
        """Starts one more process that relays."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.outbox.relay_process", str(self.path), str(self.log)),
            env=program_environment(),
        )
        self._processes.append(process)
        return process

    @property
    def published(self) -> list[tuple[int, int]]:
        """Process and number of each publication, in order."""
        lines = self.log.read_text().splitlines()
        return [(int(pid), int(number)) for pid, number in map(str.split, lines)]

    async def until(self, count: int) -> int:
        """Waits until so many were published; returns the process that published last."""
        async with asyncio.timeout(60):
            while len({number for _, number in self.published}) < count:
                await asyncio.sleep(0.01)
        return self.published[-1][0]

    async def empty(self) -> None:
        """Waits until nothing is left."""
        async with asyncio.timeout(60):
            while (await self.store.backlog())[0]:
                await asyncio.sleep(0.01)

    def check(self, count: int) -> Counter[int]:
        """Asserts that nothing is lost and keys are in order; how often each was published."""
        numbers = [number for _, number in self.published]
        first = dict.fromkeys(numbers)
        assert sorted(first) == list(range(count))
        for key in range(KEYS):
            lane = [number for number in first if number % KEYS == key]
            assert lane == sorted(lane), "a key lost its order"
        return Counter(numbers)

    async def end(self) -> None:
        """Kills what is left."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()
        await self.store.close()


@pytest.fixture
async def outbox(tmp_path: Path) -> AsyncIterator[Outbox]:
    outbox = Outbox(tmp_path)
    yield outbox
    await outbox.end()


async def test_relays_that_start_and_stop_in_order_publish_nothing_twice(outbox: Outbox) -> None:
    await outbox.fill(COUNT // 2)
    first, second = await outbox.relay(), await outbox.relay()
    for count in (20, 60):
        pid = await outbox.until(count)
        stopped = first if first.pid == pid else second
        stopped.send_signal(signal.SIGTERM)
        assert await stopped.wait() == 0
        first, second = (second if stopped is first else first), await outbox.relay()
    await outbox.fill(COUNT // 2)
    await outbox.empty()
    assert set(outbox.check(COUNT).values()) == {1}
    assert len({pid for pid, _ in outbox.published}) >= 3, "others took over"


async def test_another_takes_over_from_a_killed_relay(outbox: Outbox) -> None:
    await outbox.fill(COUNT)
    first, second = await outbox.relay(), await outbox.relay()
    pid = await outbox.until(50)
    killed = first if first.pid == pid else second
    killed.kill()
    await killed.wait()
    before = len(outbox.published)
    await outbox.empty()
    times = outbox.check(COUNT)
    twice = {number for number, count in times.items() if count > 1}
    assert twice <= {number for _, number in outbox.published[:before]}
    assert max(times.values()) <= 2
    # What was confirmed is deleted every 0.2 s, and each key had one on its way.
    assert len(twice) < 0.2 / 0.005 * KEYS + KEYS


async def test_a_relay_that_stands_still_is_not_overtaken(outbox: Outbox) -> None:
    await outbox.fill(100)
    first, second = await outbox.relay(), await outbox.relay()
    pid = await outbox.until(20)
    still = first if first.pid == pid else second
    still.send_signal(signal.SIGSTOP)
    await asyncio.sleep(0.5)
    assert {number for _, number in outbox.published} < set(range(100))
    still.send_signal(signal.SIGCONT)
    await outbox.empty()
    assert set(outbox.check(100).values()) == {1}


async def test_two_relays_of_one_process_do_not_mix(tmp_path: Path) -> None:
    one, two = SQLiteOutbox(tmp_path / "o.db"), SQLiteOutbox(tmp_path / "o.db")
    first, second = object(), object()
    assert await one.claim(first)
    assert await one.claim(first), "it still has it"
    assert not await one.claim(second)
    assert not await two.claim(second)
    await one.release(second)
    assert not await two.claim(second), "nobody releases what is another's"
    await one.release(first)
    assert await two.claim(second)
    await two.close()
    assert await one.claim(first), "a store that is closed has no claim"
    await one.close()
