"""One message, one failure: what is wrong with a message is the end of nobody else."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.outcomes import Outcome

from tests.acceptance.contract import pb
from tests.acceptance.faulty import faulty_of
from tests.acceptance.harness import Harness, Seen, handler, method, task_metadata, tasks

needs = pytest.mark.needs

YEAR_9999 = 253_402_300_799
_NUMBERS = ("inf", "-inf", "nan", "1e999", "9" * 400, "-1", str(YEAR_9999), "soon", "")
_JSON = {wire.CONTENT_TYPE: wire.JSON}


def _encoded(number: int, key: str = "") -> bytes:
    return bytes(pb.Task(number=number, key=key).SerializeToString())


@pytest.mark.parametrize("name", [wire.PF_ATTEMPT, wire.PF_FIRST_FAILURE, wire.PF_DUE])
async def test_hop_state_of_strangers_is_not_believed(harness: Harness, name: str) -> None:
    """Beside the name of the group, on a topic that others write to, in every strange form."""
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)) as service:
        for number, value in enumerate(_NUMBERS):
            forged = task_metadata(**{wire.PF_GROUP: harness.physical("workers"), name: value})
            await harness.publish("tasks", _encoded(number), metadata=forged)
        await seen.until(len(_NUMBERS))
        await harness.settled(service)
        health = service.health()
    assert (health.live, health.ready) == (True, True), health.problems
    assert sorted(seen.numbers) == list(range(len(_NUMBERS)))
    assert set(seen.attempts) == {1}


@needs("per_key")
async def test_a_message_due_in_the_year_9999_holds_no_key(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Keyed", seen.ok)) as service:
        forged = {wire.PF_GROUP: harness.physical("keyed"), wire.PF_DUE: str(YEAR_9999)}
        await harness.publish("tasks", _encoded(1, "k"), key=b"k", metadata=task_metadata(**forged))
        await harness.send(2, 3, key="k")
        await seen.until(3)
        assert service.health().ready
    assert seen.numbers == [1, 2, 3]


@needs("dead_letters")
async def test_a_lone_surrogate_in_the_text_of_an_error_is_no_crash(harness: Harness) -> None:
    seen: list[Any] = []

    async def work(value: Any, context: Context) -> None:
        seen.append(value)
        if value.get("name"):
            raise ValueError(f"unknown customer {value['name']}\ud800")

    once = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))
    service = harness.service(handler("Work", Seen(harness).ok))
    service.register_json_handler("notes", "notes", work, delivery=once)
    async with service:
        await harness.publish("notes", json.dumps({"name": "a\u20acb"}).encode(), metadata=_JSON)
        await harness.publish("notes", b"{}", metadata=_JSON)
        await harness.until(lambda: len(seen) == 2)
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("notes", "notes")
        )
        health = service.health()
    assert (health.live, health.ready) == (True, True), health.problems
    assert dead_letter.metadata[wire.PF_ERROR_MESSAGE].startswith("unknown customer")


class _NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@needs("dead_letters")
async def test_an_error_without_a_text_is_an_error(harness: Harness) -> None:
    async def work(task: Any, context: Context) -> None:
        if task.number == 1:
            raise _NoText

    once = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))
    async with harness.running(handler("Work", work), policy=once) as service:
        await harness.send(1, 2)
        (dead_letter,) = await harness.dead_letter_messages(1)
        await harness.until(lambda: service.stats()[method("Work")].handled == 1)
        assert service.health().live
    assert dead_letter.metadata[wire.PF_ERROR_TYPE] == "_NoText"


@needs("dead_letters")
async def test_a_mark_of_a_stranger_hides_no_dead_letter(harness: Harness) -> None:
    async def work(task: Any, context: Context) -> None:
        if task.number < 3:
            raise ValueError("no")

    once = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))
    async with harness.running(handler("Work", work), policy=once):
        ids = await harness.send(1, 2)
        dead_letters = await harness.dead_letter_messages(2)
        for value in (*ids, *(dead_letter.id for dead_letter in dead_letters), "0:0", "0/0", "*"):
            for metadata in (
                {wire.PF_DLQ_RESOLVED: value},
                {wire.PF_DLQ_RESOLVED: value, wire.PF_DEAD_LETTER: "true"},
            ):
                await harness.publish(
                    "tasks", b"\xff", metadata=task_metadata(**metadata), id=value
                )
        found = await harness.dead_letter_messages(2 + 2 * (len(ids) * 2 + 3))
    assert set(ids) <= {dead_letter.id for dead_letter in found}


@needs("per_key", "tombstones")
async def test_a_tombstone_behind_an_earlier_message_of_its_key_is_skipped(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    go = asyncio.Event()

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        await go.wait()

    async with harness.running(handler("Keyed", work)) as service:
        await harness.send(1, key="k")
        await seen.until(1)
        await harness.publish("tasks", None, key=b"k", metadata=task_metadata())
        await harness.send(2, key="k")
        await harness.quiet(0.1)
        go.set()
        await seen.until(2)
        stats = service.stats()[method("Keyed")]
        await harness.until(lambda: stats.tombstones == 1, what="the tombstone was not counted")
        await harness.settled(service)
    assert seen.numbers == [1, 2]
    assert stats.dead_lettered == 0


async def test_a_callback_that_raises_is_that_messages_alone(harness: Harness) -> None:
    """`on_confirmed` of one message raises in the middle of a flush of ten."""
    started: list[int] = []
    all_started = asyncio.Event()

    def middleware(next: Any, spec: Any) -> Any:
        async def run(delivery: Any, context: Any) -> Outcome:
            outcome: Outcome = await next(delivery, context)

            def call() -> None:
                raise RuntimeError("it cannot be remembered")

            if context.key == b"3":
                context.on_confirmed(call)
            return outcome

        return run

    async def work(task: Any, context: Context) -> Any:
        started.append(task.number)
        if len(started) == 10:
            all_started.set()
        await all_started.wait()
        return pb.Done(number=task.number)

    watcher = await harness.watch("done")
    options = {"middleware": [middleware]}
    async with harness.running(handler("Transform", work), options=options) as service:
        for number in range(10):
            await harness.send(number, key=str(number))
        assert sorted(tasks(await watcher.exactly(10))) == list(range(10))
        await harness.settled(service)
        health = service.health()
        assert service.stats()[method("Transform")].handled == 10
    assert (health.live, health.ready) == (True, True), health.problems
    assert sorted(started) == list(range(10)), "one ran again"


@needs("dead_letters")
async def test_a_dead_letter_that_is_refused_is_written_smaller_until_it_fits(
    harness: Harness,
) -> None:
    """Whatever the broker refuses, in the end a stub names where the message lies."""

    async def work(task: Any, context: Context) -> None:
        if task.number == 1:
            raise ValueError("no")

    once = DeliveryPolicy(retry=RetryPolicy(max_attempts=1))
    service = harness.service(handler("Work", work), policy=once, faulty=True)
    where = harness.dead_letter_topic()

    def too_large(message: Message) -> Any:
        size = len(message.payload or b"") + len("".join(message.metadata.values()))
        if message.topic == where and size > 600:
            return PublishRefusedError("too large")
        return None

    async with service:
        faulty_of(service).rule = too_large
        metadata = {"long": "x" * 3000}
        await harness.producer.publish_task(pb.Task(number=1, blob=b"x" * 5000), metadata=metadata)
        await harness.send(2)
        (dead_letter,) = await harness.dead_letter_messages(1)
        await harness.until(lambda: service.stats()[method("Work")].handled == 1)
        await harness.settled(service)
        assert service.health().ready, service.health().problems
    assert dead_letter.metadata[wire.PF_ORIGINAL_TOPIC] == harness.physical("tasks")
    assert len(faulty_of(service).refused) <= 4, "each form is tried once"
