"""Several processes on one file, and processes that are killed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from pathlib import Path

import pytest
from protoflow.contract.spec import Ordering
from protoflow.message import Message

from tests.transports.harness import Listener, ack, messages, opened, settings, take
from tests.transports.sqlite.process import KEYS, key_of

ROOT = Path(__file__).parents[3]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/queue.db"


class Process:
    """A process, and what it said."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []
        self.reading = asyncio.ensure_future(self._read())

    @classmethod
    async def start(cls, job: str, url: str) -> Process:
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.transports.sqlite.process",
                job,
                url,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'runtime'}"},
                stdout=asyncio.subprocess.PIPE,
            )
        )

    async def said(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.lines) < count:
                assert self.process.returncode is None
                await asyncio.sleep(0.005)

    async def kill(self) -> list[str]:
        self.process.kill()
        await self.process.wait()
        await self.reading
        return self.lines

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.endswith(b"\n"):
                self.lines.append(line.decode().strip())


def check(url: str) -> None:
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_a_killed_publisher_loses_nothing_that_was_confirmed(url: str) -> None:
    process = await Process.start("publish", url)
    await process.said(500)
    confirmed = await process.kill()
    check(url)
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(ordering=Ordering.PER_KEY), Listener())
        waiting = (await transport.lag("t", "g")).messages
        batch = await take(subscription, waiting)
        got = [int(delivery.message.id) for delivery in batch]
        assert got == list(range(waiting)), "whole batches, in order"
        assert set(map(int, confirmed)) <= set(got)
        await ack(subscription, batch)


def keyed(count: int) -> list[Message]:
    return [
        Message(id=str(number), topic="t", payload=b"", key=key_of(number))
        for number in range(count)
    ]


def handled(lines: list[str]) -> list[int]:
    """The messages that consumers handled, in the order of time; each key is in order."""
    found = sorted(tuple(map(int, line.split())) for line in lines if line != "ready")
    numbers = [number for _, number in found]
    assert len(numbers) == len(set(numbers)), "acknowledged twice"
    for key in range(KEYS):
        of_key = [number for number in numbers if number % KEYS == key]
        assert of_key == sorted(of_key)
    return numbers


async def test_killed_consumers_lose_nothing_and_keep_the_order_of_keys(url: str) -> None:
    count, kills = 400, 0
    lines: list[str] = []
    async with opened(url) as transport:
        processes = [await Process.start("consume", url) for _ in range(2)]
        for process in processes:
            await process.said(1)
        await transport.submit(keyed(count))
        async with asyncio.timeout(60):
            while (await transport.lag("t", "g")).messages > 0:
                for index, process in enumerate(processes):
                    if len(process.lines) > 60:
                        kills += 1
                        lines += await process.kill()
                        processes[index] = await Process.start("consume", url)
                await asyncio.sleep(0.02)
        for process in processes:
            lines += await process.kill()
    check(url)
    assert kills >= 3
    # What was acknowledged and not said before the kill is missing here: at most one a kill.
    assert len(handled(lines)) >= count - kills - 2


async def test_order_of_keys_over_processes(url: str) -> None:
    count = 200
    async with opened(url) as transport:
        processes = [await Process.start("consume", url) for _ in range(2)]
        for process in processes:
            await process.said(1)
        for message in keyed(count):
            await transport.submit([message])
        async with asyncio.timeout(30):
            while (await transport.lag("t", "g")).messages:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.2)
        lines = [await process.kill() for process in processes]
    assert all(len(each) > 10 for each in lines), "both took part"
    assert len(handled(lines[0] + lines[1])) == count


async def test_what_another_process_publishes_is_noticed_soon(url: str) -> None:
    async with opened(f"{url}?poll_interval=50ms") as transport:
        subscription = await transport.subscribe(settings(), Listener())
        receiving = asyncio.ensure_future(take(subscription, 1, within=30))
        await asyncio.sleep(0.3)
        process = await Process.start("publish", url)
        await process.said(1)
        said = time.monotonic()
        await receiving
        assert time.monotonic() - said < 1.0
        await process.kill()


async def test_two_transports_of_one_process_wake_each_other_at_once(url: str) -> None:
    async with opened(f"{url}?poll_interval=1h") as one, opened(url) as two:
        subscription = await one.subscribe(settings(), Listener())
        receiving = asyncio.ensure_future(take(subscription))
        await asyncio.sleep(0.2)
        await two.submit(messages(1))
        await asyncio.wait_for(receiving, 2.0)


async def test_a_batch_costs_as_many_statements_as_a_message(url: str) -> None:
    """Each step gives up the interpreter's lock, and may wait 5 ms for it."""
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        statements: list[str] = []
        await transport.worker.call(
            lambda connection: connection.set_trace_callback(statements.append), writes=False
        )
        counts = []
        for size in (1, 256):
            statements.clear()
            await transport.submit(messages(size))
            await ack(subscription, await take(subscription, size))
            counts.append(len(statements))
        assert counts[0] == counts[1] <= 20


async def test_a_busy_event_loop_slows_but_does_not_starve(url: str) -> None:
    async with opened(url) as transport:
        subscription = await transport.subscribe(settings(), Listener())
        busy = True

        async def spin() -> None:
            while busy:
                until = time.perf_counter() + 0.0002
                while time.perf_counter() < until:
                    pass
                await asyncio.sleep(0)

        spinning = asyncio.ensure_future(spin())
        try:
            for _ in range(3):
                await transport.submit(messages(256))
                await ack(subscription, await take(subscription, 256, within=10))
        finally:
            busy = False
            await spinning
