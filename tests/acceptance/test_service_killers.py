"""Only what was running alone when its process died is a killer; all others are innocent."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, OnExhausted, RetryPolicy

from tests.acceptance.contract import pb
from tests.acceptance.harness import Harness, Seen, handler, method
from tests.acceptance.test_service_crash import Program, Programs, programs

__all__ = ["programs"]

needs = pytest.mark.needs
pytestmark = [
    needs("durable", "at_least_once", "dead_letters", "proves_killers"),
    pytest.mark.timeout(240),
]

#: Hand-outs that raise suspicion come soon, so a test needs few deaths.
_SUSPICIOUS = {"max_deliveries_margin": 0, "lease": 1.0, "shutdown_timeout": 5.0}
_ONCE = {"retry": {"max_attempts": 1}}
#: More deaths than two for each killer, and the hand-outs before the first suspicion.
MOST_DEATHS = 14


def _settings(*services: str, **fields: Any) -> dict[str, Any]:
    policies = {method(service): {**_ONCE, **fields} for service in services}
    return {**_SUSPICIOUS, "handlers": policies}


def _options(harness: Harness) -> dict[str, Any]:
    """On Kafka one partition."""
    if harness.target.name != "kafka":
        return {}
    known = {**harness.target.options, **harness.target.crash_options, "partitions": 1}
    return {"transport_options": known}


class Deaths:
    """Starts a process again and again until one lives."""

    def __init__(self, harness: Harness, programs: Programs) -> None:
        self._lab = harness
        self._programs = programs
        self.died: list[Program] = []
        self.last: Program

    @property
    def ended(self) -> set[int]:
        return {number for program in [*self.died, self.last] for number in program.ended}

    @property
    def begun(self) -> list[int]:
        return [number for program in [*self.died, self.last] for number in program.begun]

    async def until_all(
        self, numbers: set[int], dead_letters: list[str], count: int, **order: Any
    ) -> None:
        """... and until these are handled and so many dead letters lie in the topics."""
        for _ in range(MOST_DEATHS):
            self.last = program = await self._programs.start(ready=False, **order)
            deadline = asyncio.get_running_loop().time() + 30 * self._lab.patience
            while program.process.returncode is None:
                found = sum([await self._lab.dead_letters.count(one) for one in dead_letters])
                if numbers <= self.ended and found >= count:
                    return
                assert asyncio.get_running_loop().time() < deadline, (
                    f"not handled: {numbers - self.ended}; {found} of {count} dead letters"
                )
                await asyncio.sleep(0.05)
            self.died.append(program)
        codes = [program.process.returncode for program in self.died]
        raise AssertionError(
            f"{MOST_DEATHS} processes died, by {codes}: {numbers - self.ended} not handled"
        )


def _numbers(dead_letters: list[Any]) -> list[int]:
    return sorted(pb.Task.FromString(dead_letter.payload).number for dead_letter in dead_letters)


async def test_a_backlog_of_another_topic_is_not_blamed(
    harness: Harness, programs: Programs
) -> None:
    """A killer on one topic; slow innocents of another topic run in the same process."""
    quick = Seen(harness)
    common = _options(harness)
    names = ("Work", "Side")
    await harness.prepare(*(handler(name, quick.ok) for name in names), **common, lease=1.0)
    await harness.producer.publish_done_many(pb.Done(number=number) for number in range(100, 112))
    await harness.send(*range(6))
    deaths = Deaths(harness, programs)
    await deaths.until_all(
        {*range(5), *range(100, 112)},
        [harness.dead_letter_topic(), harness.dead_letter_topic("done", "side")], 1,
        service=list(names), kills=[5], before_kill=0.2, slow=dict.fromkeys(range(100, 112), 1.0),
        settings={**_settings(*names), **common},
    )  # fmt: skip
    (dead_letter,) = await harness.dead_letter_messages(1)
    assert _numbers([dead_letter]) == [5]
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "redelivery limit"
    assert await harness.dead_letters.count(harness.dead_letter_topic("done", "side")) == 0
    assert deaths.died


async def test_innocents_between_two_killers_are_handled(
    harness: Harness, programs: Programs
) -> None:
    common = _options(harness)
    await harness.prepare(handler("Work", Seen(harness).ok), **common, lease=1.0)
    await harness.send(*range(16))
    deaths = Deaths(harness, programs)
    await deaths.until_all(
        set(range(16)) - {1, 10}, [harness.dead_letter_topic()], 2,
        kills=[1, 10], seconds=0.02, settings={**_settings("Work", concurrency=2), **common},
    )  # fmt: skip
    assert _numbers(await harness.dead_letter_messages(2)) == [1, 10]


@needs("per_key")
async def test_innocents_before_and_behind_a_killer_of_their_key_are_handled_in_order(
    harness: Harness, programs: Programs
) -> None:
    common = _options(harness)
    await harness.prepare(handler("Keyed", Seen(harness).ok), **common, lease=1.0)
    await harness.send(*range(5), key="k")
    deaths = Deaths(harness, programs)
    where = harness.dead_letter_topic(group="keyed")
    await deaths.until_all(
        {0, 1, 2, 4}, [where], 1, service="Keyed", kills=[3],
        settings={**_settings("Keyed"), **common},
    )  # fmt: skip
    (dead_letter,) = await harness.dead_letter_messages(1, where)
    assert _numbers([dead_letter]) == [3]
    first = [
        number for index, number in enumerate(deaths.begun) if number not in deaths.begun[:index]
    ]
    assert first == [0, 1, 2, 3, 4]
    repeated = [number for number in range(3) if deaths.begun.count(number) > len(deaths.died) + 1]
    assert not repeated


async def test_many_restarts_with_a_backlog_dead_letter_nothing(harness: Harness) -> None:
    """Prefetched and given back, many times: nothing that never ran is dead-lettered."""
    seen = Seen(harness)
    count = 40
    slow = True

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if slow:
            await asyncio.sleep(30)
        seen.done.append(task.number)

    common: dict[str, Any] = {
        "policy": DeliveryPolicy(concurrency=1, retry=RetryPolicy(max_attempts=1)),
        "shutdown_timeout": 0.1, "max_deliveries_margin": 1, **_options(harness),
    }  # fmt: skip
    await harness.prepare(handler("Work", work), **common)
    await harness.send(*range(count))
    for _ in range(harness.target.restarts):
        async with harness.running(handler("Work", work), **common):
            await asyncio.sleep(0.1)
    slow = False
    async with harness.running(handler("Work", work), **common) as service:
        await harness.until(
            lambda: len(set(seen.done)) == count, within=20,
            what=f"{len(set(seen.done))} of {count} were handled",
        )  # fmt: skip
        await harness.settled(service)
    assert await harness.dead_letters.count(harness.dead_letter_topic()) == 0
    assert set(seen.attempts) == {1}, "being given back is no failed run"


async def test_two_deploys_in_the_middle_of_a_long_job_never_convict_it(
    harness: Harness, programs: Programs
) -> None:
    """The job is suspected already, so it runs alone behind a mark; each orderly end clears it."""
    common = _options(harness)
    settings = {**_settings("Work"), **common, "shutdown_timeout": 0.3}
    await harness.prepare(handler("Work", Seen(harness).ok), **common, lease=1.0)
    await harness.send(7)
    for _ in range(2):  # two deaths with it in hand
        program = await programs.start(slow={7: 60}, settings=settings)
        await program.until(lambda program: program.begun, within=30)
        await program.kill()
    for _ in range(3):  # deploys
        program = await programs.start(slow={7: 60}, settings=settings)
        await program.until(lambda program: program.begun, within=30)
        program.process.send_signal(signal.SIGTERM)
        assert await program.ends(within=30) == 0
    program = await programs.start(settings=settings)
    await program.until(lambda program: program.ended, within=30)
    assert await harness.dead_letters.count(harness.dead_letter_topic()) == 0
    assert program.events("begin") == [["7", "1"]]


@needs("per_key")
async def test_blocked_for_long_never_ends_as_a_redelivery_limit(harness: Harness) -> None:
    """BLOCK, with a lease that is held at most for a moment: given back and taken many times."""
    seen = Seen(harness)
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if task.number == 0 and loop.time() < begun + 6 * settings["max_hold"]:
            raise RuntimeError("the downstream is away")
        seen.done.append(task.number)

    blocks = DeliveryPolicy(
        retry=RetryPolicy(max_attempts=2, initial_backoff=0.05, max_backoff=0.05, jitter=0.0),
        dead_letter=DeadLetterPolicy(on_exhausted=OnExhausted.BLOCK),
    )
    settings: dict[str, Any] = {
        "max_hold": 1.0, "retry_in_place": 0.3, "lease": 0.3, "max_deliveries_margin": 0,
    }  # fmt: skip
    if harness.target.name in ("kafka", "jetstream", "rabbitmq", "postgresql"):
        settings["lease"] = 1.0
        settings["max_hold"] = 2.0
    async with harness.running(handler("Keyed", work), policy=blocks, **settings) as service:
        await harness.send(0, 1, 2, 3, key="k")
        await harness.until(lambda: len(seen.done) == 4, within=30)
        await harness.settled(service)
    assert seen.done == [0, 1, 2, 3]
    assert await harness.dead_letters.count(harness.dead_letter_topic(group="keyed")) == 0
