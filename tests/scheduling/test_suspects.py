"""Suspects: alone in the process, behind a mark that every end but the process's death clears."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.errors import TransportError
from protoflow.message import Delivery, Message
from protoflow.outcomes import DeadLetter
from protoflow.scheduling.gate import SOLO, SoloGate
from protoflow.scheduling.job import Job
from protoflow.scheduling.suspects import PROOF, Suspects


def job(name: str, deliveries: int = 100) -> Job:
    message = Message(id=name, topic="t", payload=b"")
    route: Any = SimpleNamespace(gatherer=None, suspect_at=10)
    return Job(Delivery(message=message, deliveries=deliveries), message, route, None)


class Marks:
    """Start marks that outlive the process."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.kept: dict[str, int] = {}
        self.broken = 0
        self.solo: list[Delivery] | None = None

    def _call(self, what: str, delivery: Delivery) -> str:
        if self.broken:
            self.broken -= 1
            raise TransportError("the broker is away")
        self.log.append(f"{what} {delivery.message.id}")
        return delivery.message.id

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        if self.solo is not None:
            if delivery is not None:
                self._call("move", delivery)
                self.solo.append(delivery)
            if not self.solo:
                return None
            first = self.solo.pop(0)
            moved = Delivery(message=first.message, deliveries=1)
            return moved, self.kept.get(first.message.id, 0)
        if delivery is None:
            return None
        return delivery, self.kept.get(delivery.message.id, 0)

    async def mark(self, delivery: Delivery) -> None:
        name = self._call("mark", delivery)
        self.kept[name] = self.kept.get(name, 0) + 1

    async def clear(self, delivery: Delivery) -> None:
        self.kept.pop(self._call("clear", delivery), None)


class Process:
    """A process with one subscription: its host, its gate, its suspects."""

    def __init__(self, log: list[str], marks: Marks | None, patience: float = 5.0) -> None:
        self.log = log
        self.gate = SoloGate()
        self.given_up: list[tuple[str, DeadLetter]] = []
        self.problems: dict[str, str | None] = {}
        self.run: Callable[[Job], Any] = lambda _job: asyncio.sleep(0)
        self.closed = 0
        self.busy = asyncio.Event()
        self.busy.set()
        self.gate.join(self)
        self.suspects = Suspects("t/g", self, self.gate, marks, patience)

    # The gate's member.

    def close_gate(self, reason: str) -> None:
        assert reason == SOLO
        self.closed += 1

    def open_gate(self, reason: str) -> None:
        self.closed -= 1

    async def quiet(self) -> None:
        await self.busy.wait()

    # The suspects' host.

    def paused(self) -> bool:
        return False

    def job_alone(self, delivery: Delivery) -> Job | None:
        one = job(delivery.message.id, 1)
        one.delivery = delivery
        return one

    async def run_alone(self, one: Job) -> None:
        assert self.closed == 1, "the gate is closed"
        self.log.append(f"run {one.message.id}")
        with suppress(asyncio.CancelledError):
            await self.run(one)
        self.log.append(f"end {one.message.id}")

    def settle_again(self) -> None:
        self.log.append("settle")

    def give_up(self, one: Job, outcome: DeadLetter, then: Callable[[], None]) -> None:
        self.given_up.append((one.message.id, outcome))
        then()

    def settled_elsewhere(self, one: Job) -> None:
        self.log.append(f"elsewhere {one.message.id}")

    def mark_unready(self, reason: str, detail: str | None) -> None:
        self.problems[reason] = detail

    async def done(self, within: float = 10.0) -> None:
        async with asyncio.timeout(within):
            while len(self.suspects) or self.closed:
                await asyncio.sleep(0.005)


async def test_the_mark_is_there_before_the_run_and_gone_before_the_settlement() -> None:
    log: list[str] = []
    marks = Marks(log)
    process = Process(log, marks)
    process.suspects.put(job("a"))
    await process.done()
    assert log == ["mark a", "run a", "end a", "clear a", "settle"]
    assert marks.kept == {}


async def test_two_marks_without_an_end_prove_it_without_another_run() -> None:
    log: list[str] = []
    marks = Marks(log)
    marks.kept["a"] = PROOF
    process = Process(log, marks)
    process.suspects.put(job("a"))
    await process.done()
    await process.suspects.stop(1.0)
    assert "run a" not in log
    ((name, outcome),) = process.given_up
    assert name == "a"
    assert outcome.category == "redelivery limit"
    assert marks.kept == {}, "what is dead-lettered leaves no mark behind"


async def test_without_a_mark_nothing_runs() -> None:
    log: list[str] = []
    marks = Marks(log)
    marks.broken = 2
    process = Process(log, marks)
    with patch("protoflow.scheduling.suspects._FIRST_WAIT", 0.01):
        process.suspects.put(job("a"))
        await process.done()
    assert log == ["clear a", "mark a", "run a", "end a", "clear a", "settle"]


async def test_a_mark_that_cannot_be_cleared_is_cleared_later_and_settled_after() -> None:
    log: list[str] = []
    marks = Marks(log)

    async def run(_job: Job) -> None:
        marks.broken = 2

    process = Process(log, marks)
    process.run = run
    process.suspects.put(job("a"))
    async with asyncio.timeout(10):
        while not process.problems.get("a start mark cannot be cleared"):
            await asyncio.sleep(0.005)
    await process.done()
    assert log == ["mark a", "run a", "end a", "clear a", "settle"]
    assert process.problems["a start mark cannot be cleared"] is None


async def test_a_process_that_never_becomes_quiet_runs_no_suspect_and_is_not_held_up() -> None:
    log: list[str] = []
    process = Process(log, Marks(log), patience=0.02)
    process.busy.clear()
    process.suspects.put(job("a"))
    await asyncio.sleep(0.2)
    assert log == []
    assert process.closed == 0, "the gate is open between two tries"
    taken = process.suspects.take(lambda _job: True)
    assert [one.message.id for one in taken] == ["a"]


async def test_a_shutdown_in_the_middle_of_a_run_clears_the_mark() -> None:
    log: list[str] = []
    marks = Marks(log)
    process = Process(log, marks)
    running: list[asyncio.Task[None]] = []
    started = asyncio.Event()

    async def run(_job: Job) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append(task)
        started.set()
        await asyncio.Event().wait()

    process.run = run
    process.suspects.put(job("long"))
    process.suspects.put(job("next"))
    await asyncio.wait_for(started.wait(), 5)
    stop = asyncio.create_task(process.suspects.stop(5.0))
    await asyncio.sleep(0)
    running[0].cancel()  # as the workers' stop does
    await stop
    assert marks.kept == {}
    assert "run next" not in log


async def test_a_mark_that_is_cut_off_by_the_end_is_cleared_and_its_message_given_back() -> None:
    log: list[str] = []

    class Slow(Marks):
        async def mark(self, delivery: Delivery) -> None:
            await super().mark(delivery)  # the broker has it, and its answer does not come
            await asyncio.Event().wait()

    marks = Slow(log)
    process = Process(log, marks)
    process.suspects.put(job("a"))
    async with asyncio.timeout(10):
        while "mark a" not in log:
            await asyncio.sleep(0.005)
    await process.suspects.stop(0.2)
    assert marks.kept == {}, "an end in order blames nobody"
    assert [one.message.id for one in process.suspects.take(lambda _job: True)] == ["a"]
    assert process.closed == 0


@settings(deadline=None, max_examples=60)
@given(st.lists(st.sampled_from(["orderly", "crash"]), min_size=1, max_size=12))
def test_only_the_death_of_the_process_during_the_run_alone_counts(ends: list[str]) -> None:
    """However often a long job is given back by orderly ends, it is not convicted; a killer is,
    after two deaths in a row."""
    kept: dict[str, int] = {}
    deaths = 0
    convicted = False

    async def life(end: str) -> bool:
        log: list[str] = []
        marks = Marks(log)
        marks.kept = kept
        process = Process(log, marks)
        started = asyncio.Event()
        tasks: list[asyncio.Task[None]] = []

        async def run(_job: Job) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.append(task)
            started.set()
            await asyncio.Event().wait()

        process.run = run
        process.suspects.put(job("m"))
        while not started.is_set() and not process.given_up:
            await asyncio.sleep(0)
        if process.given_up:
            await process.suspects.stop(1.0)
            return True
        if end == "orderly":
            stop = asyncio.create_task(process.suspects.stop(5.0))
            await asyncio.sleep(0)
            tasks[0].cancel()
            await stop
        marks.kept = {}  # a dead process changes nothing any more
        return False

    for end in ends:
        convicted = asyncio.run(life(end))
        assert convicted == (deaths >= PROOF)
        if convicted:
            return
        deaths = deaths + 1 if end == "crash" else 0


async def test_a_suspect_without_identity_is_moved_and_the_first_of_the_solo_queue_runs() -> None:
    log: list[str] = []
    marks = Marks(log)
    marks.solo = [Delivery(message=Message(id="earlier", topic="t", payload=b""))]
    process = Process(log, marks)
    process.suspects.put(job("a"))
    await process.done()
    runs = [entry for entry in log if entry.startswith("run")]
    assert runs == ["run earlier", "run a"]
    assert "elsewhere a" in log


async def test_where_no_mark_survives_it_runs_alone_later_each_time_and_is_never_given_up() -> None:
    log: list[str] = []
    process = Process(log, None)
    process.suspects.put(job("a", deliveries=13))
    assert process.problems["suspects that cannot be proved"] is not None
    await asyncio.sleep(0.05)
    assert log == []
    loop: Any = asyncio.get_running_loop()
    (timer,) = process.suspects._unproved.values()
    assert timer.when() - loop.time() > 7.0
    assert len(process.suspects.take(lambda _job: True)) == 1
    process.suspects.put(job("b", deliveries=10))
    await process.done()
    assert log == ["run b", "end b", "settle"]
    assert process.given_up == []


@asynccontextmanager
async def members(gate: SoloGate, count: int) -> AsyncIterator[list[Any]]:
    made = []
    for _ in range(count):
        log: list[str] = []
        process = Process(log, None)
        gate.join(process)
        made.append(process)
    yield made


async def test_the_gate_closes_every_subscription_of_the_process_and_new_ones_too() -> None:
    gate = SoloGate()
    async with members(gate, 3) as made:
        late = Process([], None)
        async with gate.alone(1.0) as quiet:
            assert quiet
            gate.join(late)
            assert [one.closed for one in (*made, late)] == [1, 1, 1, 1]
        assert [one.closed for one in (*made, late)] == [0, 0, 0, 0]
        made[1].busy.clear()
        async with gate.alone(0.01) as quiet:
            assert not quiet, "one is not quiet"


async def test_suspects_of_several_subscriptions_take_turns() -> None:
    gate = SoloGate()
    inside = 0

    async def alone() -> None:
        nonlocal inside
        async with gate.alone(1.0):
            inside += 1
            assert inside == 1
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.wait_for(asyncio.gather(*(alone() for _ in range(10))), 10)
