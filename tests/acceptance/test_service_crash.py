"""Processes that are killed, and the messages that kill them: nothing is lost."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from protoflow import wire
from protoflow.contract.spec import DeliveryPolicy

from tests.acceptance.contract import pb, program_environment
from tests.acceptance.harness import Harness, Seen, handler, method, tasks

needs = pytest.mark.needs
pytestmark = [needs("durable", "at_least_once"), pytest.mark.timeout(240)]

#: A short lease, so that what a killed process held comes again soon.
LEASE = 2.0
#: Seconds after its end for which a message may be unsettled: Kafka commits once a second.
SETTLED = 1.3


class Program:
    """A process that runs a service, and what it wrote."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path, patience: float) -> None:
        self.process = process
        self._log = log
        self._patience = patience

    @property
    def lines(self) -> list[list[str]]:
        return [line.split() for line in self._log.read_text().splitlines()]

    def events(self, kind: str) -> list[list[str]]:
        return [words[1:] for words in self.lines if words[0] == kind]

    @property
    def ended(self) -> Counter[int]:
        return Counter(int(words[0]) for words in self.events("end"))

    @property
    def begun(self) -> list[int]:
        return [int(words[0]) for words in self.events("begin")]

    async def until(self, condition: Any, *, within: float = 20.0) -> None:
        async with asyncio.timeout(within * self._patience):
            while not condition(self):
                assert self.process.returncode is None, "the program ended"
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def ends(self, *, within: float = 20.0) -> int:
        async with asyncio.timeout(within * self._patience):
            return await self.process.wait()


class Programs:
    """Starts programs, and ends those that are left."""

    def __init__(self, harness: Harness) -> None:
        self._lab = harness
        self._programs: list[Program] = []

    async def start(self, service: str = "Work", *, ready: bool = True, **order: Any) -> Program:
        harness = self._lab
        log = harness.directory / f"{uuid.uuid4().hex}.log"
        log.touch()
        own = {
            "lease": LEASE,
            "handle_signals": True,
            "transport_options": {**harness.target.options, **harness.target.crash_options},
        }
        settings = harness.settings(**{**own, **order.pop("settings", {})})
        words = json.dumps({"settings": settings, "service": service, "log": str(log), **order})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.acceptance.program", words), env=program_environment()
        )
        program = Program(process, log, harness.patience)
        self._programs.append(program)
        if ready:
            await program.until(lambda program: program.events("ready"), within=30)
        return program

    async def close(self) -> None:
        for program in self._programs:
            if program.process.returncode is None:
                await program.kill()


@pytest.fixture
async def programs(harness: Harness) -> AsyncIterator[Programs]:
    programs = Programs(harness)
    yield programs
    await programs.close()


@needs("retains")
async def test_a_process_killed_under_load_loses_nothing(
    harness: Harness, programs: Programs
) -> None:
    count = 400
    await harness.prepare(handler("Work", Seen(harness).ok), lease=LEASE)
    for start in range(0, count, 100):
        await harness.send(*range(start, start + 100))
    first = await programs.start(seconds=0.005)
    await first.until(lambda program: len(program.ended) >= 50)
    await first.kill()
    second = await programs.start(seconds=0.001)
    await second.until(lambda _: len(first.ended.keys() | second.ended.keys()) == count, within=60)
    await harness.quiet(0.2)
    both = first.ended + second.ended
    assert set(both) == set(range(count)), "messages were lost"
    assert max(second.ended.values()) == 1
    # Twice is only what the first had taken and whose settlement it may not have got out.
    twice = {number for number, times in both.items() if times > 1}
    assert twice <= set(first.ended)


@needs("retains")
async def test_outputs_of_a_killed_process_are_all_there(
    harness: Harness, programs: Programs
) -> None:
    count = 200
    watcher = await harness.watch("done")
    await harness.prepare(handler("Transform", Seen(harness).ok), lease=LEASE)
    await harness.send(*range(count))
    first = await programs.start("Transform", seconds=0.005)
    await first.until(lambda program: len(program.ended) >= 30)
    await first.kill()
    second = await programs.start("Transform")
    await second.until(lambda _: {*tasks(watcher.messages)} == set(range(count)), within=60)
    ids: dict[int, set[str]] = {}
    for message in watcher.messages:
        ids.setdefault(pb.Done.FromString(message.payload).number, set()).add(message.id)
    assert all(len(found) == 1 for found in ids.values()), "a redone run repeats its ids"
    if harness.always_atomic:
        assert len(watcher.messages) == count, "atomic outputs come once"


@needs("processes", "groups")
async def test_two_processes_share_a_group(harness: Harness, programs: Programs) -> None:
    one = await programs.start(seconds=0.01)
    two = await programs.start(seconds=0.01)
    for start in range(0, 200, 20):
        await harness.send(*range(start, start + 20))
        await asyncio.sleep(0.02)
    await one.until(lambda _: len(one.ended) + len(two.ended) >= 200, within=30)
    await harness.quiet(0.2)
    assert one.ended + two.ended == Counter(range(200))


@needs("processes", "groups")
async def test_what_a_killed_process_held_goes_to_the_other(
    harness: Harness, programs: Programs
) -> None:
    settings = {"rebalance_drain": 2.0}  # by which the other waits for it to join
    slow = await programs.start(seconds=60, settings=settings)
    await harness.send(*range(5))
    await slow.until(lambda program: program.begun)
    held = set(slow.begun)
    quick = await programs.start(settings=settings)
    await slow.kill()
    await quick.until(lambda program: held <= set(program.ended), within=60)
    for words in quick.events("begin"):
        assert words[1] == "1", "a crash is no failed run"


@needs("processes", "per_key")
async def test_a_process_that_stands_still_for_longer_than_its_lease(
    harness: Harness, programs: Programs
) -> None:
    """Another takes over; when it goes on, it finds out that its messages are not its own."""
    count, keys, in_flight = 220, 4, 10
    settings = {"rebalance_drain": 1.0, "max_in_flight": in_flight}
    await harness.prepare(handler("Keyed", Seen(harness).ok), lease=LEASE)
    for key in range(keys):
        await harness.send(*range(key, count, keys), key=f"k{key}")
    still = await programs.start("Keyed", seconds=0.04, settings=settings)
    await still.until(lambda program: len(program.ended) >= 160)
    still.process.send_signal(signal.SIGSTOP)
    stopped = time.time()
    other = await programs.start("Keyed", ready=False, settings=settings)
    await other.until(lambda program: program.ended, within=30)
    still.process.send_signal(signal.SIGCONT)
    await other.until(lambda _: len(still.ended | other.ended) == count, within=30)
    await harness.quiet(0.3)
    assert {*still.ended, *other.ended} == set(range(count)), "messages were lost"
    assert max(still.ended.values()) == max(other.ended.values()) == 1
    ends = [(float(at), int(number)) for number, at in still.events("end")]
    settled = {number for ended, number in ends if ended < stopped - SETTLED}
    assert not settled & set(other.ended), "what was settled was handled again"
    late = {number for ended, number in ends if ended > stopped}
    assert len(late & set(other.ended)) <= in_flight, "it went on with what is another's"
    ends += [(float(at), int(number)) for number, at in other.events("end")]
    first = dict.fromkeys(number for _, number in sorted(ends))
    for key in range(keys):
        lane = [number for number in first if number % keys == key]
        assert lane == list(range(key, count, keys)), "a key lost its order"


@needs("counts_deliveries", "dead_letters", "retains")
async def test_a_message_that_kills_its_process_ends_in_the_dead_letters_alone(
    harness: Harness, programs: Programs
) -> None:
    killer = 3
    settings = {
        "lease": 1.0,
        "max_deliveries_margin": 0,
        "handlers": {method("Work"): {"retry": {"max_attempts": 1}}},
    }
    policy = DeliveryPolicy()
    await harness.prepare(handler("Work", Seen(harness).ok), lease=1.0, policy=policy)
    await harness.send(*range(8))
    killed = []
    done: set[int] = set()
    innocent = set(range(8)) - {killer}
    for _ in range(8):
        program = await programs.start(ready=False, kills=[killer], settings=settings)
        try:
            async with asyncio.timeout(15 * harness.patience):
                while program.process.returncode is None:
                    await asyncio.sleep(0.05)
                    if await harness.dead_letters.count(harness.dead_letter_topic()):
                        break
        except TimeoutError:
            pass
        done |= set(program.ended)
        if program.process.returncode is None:
            await harness.quiet(1.0)
            done |= set(program.ended)
            break
        killed.append(program)
    (dead_letter,) = await harness.dead_letter_messages(1)
    assert pb.Task.FromString(dead_letter.payload).number == killer
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "redelivery limit"
    assert dead_letter.metadata[wire.PF_ATTEMPT] == "0"
    assert int(dead_letter.metadata[wire.PF_DELIVERIES]) >= 2
    assert done == innocent, "a neighbour was harmed"
    assert killed
    assert killer in killed[-1].begun


@needs("retains")
async def test_sigterm_finishes_what_runs_and_exits_clean(
    harness: Harness, programs: Programs
) -> None:
    program = await programs.start(seconds=0.5)
    await harness.send(*range(4))
    await program.until(lambda program: len(program.begun) == 4)
    program.process.send_signal(signal.SIGTERM)
    assert await program.ends() == 0
    assert set(program.ended) == set(range(4))
    assert program.events("stopped")
    again = await programs.start()
    await harness.quiet()
    assert again.begun == []


async def test_sigterm_gives_back_what_cannot_finish(harness: Harness, programs: Programs) -> None:
    program = await programs.start(seconds=60, settings={"shutdown_timeout": 0.3})
    await harness.send(1)
    await program.until(lambda program: program.begun)
    program.process.send_signal(signal.SIGINT)
    assert await program.ends() == 0
    again = await programs.start()
    await again.until(lambda program: program.ended)
    assert again.events("begin") == [["1", "1"]]
