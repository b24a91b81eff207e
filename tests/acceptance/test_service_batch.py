"""Batches: partial failures, culprits found one by one, outputs with their own inputs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.errors import BatchFailed
from protoflow.handler import Batch
from protoflow.outcomes import Skip, Unprocessable
from protoflow.output import Output
from protoflow.sync_context import SyncContext

from tests.acceptance.contract import pb, pf
from tests.acceptance.faulty import faulty_of, nothing_fails, topic_fails
from tests.acceptance.harness import Harness, handler, method, sync_handler, task_metadata, tasks

needs = pytest.mark.needs


class Batches:
    """What a batch handler was given."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.attempts: dict[int, list[int]] = {}
        self.done: list[int] = []

    def note(self, batch: Batch[Any]) -> None:
        self.batches.append([task.number for task in batch])
        for task, context in zip(batch, batch.contexts, strict=True):
            self.attempts.setdefault(task.number, []).append(context.attempt)

    async def ok(self, batch: Batch[Any], context: Context) -> None:
        self.note(batch)
        self.done += [task.number for task in batch]


async def test_messages_come_in_batches_up_to_the_bound(harness: Harness) -> None:
    got = Batches()
    async with harness.running(handler("Bulk", got.ok)):
        await harness.send(*range(12))
        await harness.until(lambda: len(got.done) == 12)
    assert sorted(got.done) == list(range(12))
    assert max(map(len, got.batches)) <= 5
    assert len(got.batches) < 12


async def test_a_batch_that_does_not_fill_waits_no_longer_than_it_may(harness: Harness) -> None:
    got = Batches()
    async with harness.running(handler("Bulk", got.ok)):
        await harness.send(1, 2)
        await harness.until(lambda: len(got.done) == 2, within=3)


async def test_a_batch_handler_in_a_thread(harness: Harness) -> None:
    got = Batches()

    def bulk(batch: Batch[Any], context: SyncContext) -> None:
        got.note(batch)
        got.done += [task.number for task in batch]

    async with harness.running(sync_handler("Bulk", bulk)):
        await harness.send(*range(6))
        await harness.until(lambda: len(got.done) == 6)


async def test_each_message_has_a_context_of_its_own(harness: Harness) -> None:
    got = {}

    async def bulk(batch: Batch[Any], context: Context) -> None:
        assert len(batch) == len(batch.contexts)
        for task, own in zip(batch, batch.contexts, strict=True):
            got[task.number] = (own.id, own.key, own.metadata["color"])

    async with harness.running(handler("Bulk", bulk)):
        ids = [
            await harness.producer.publish_task(
                pb.Task(number=n, key=f"k{n}"), metadata={"color": str(n)}
            )
            for n in range(3)
        ]
        await harness.until(lambda: len(got) == 3)
    assert got == {n: (ids[n], b"k%d" % n, str(n)) for n in range(3)}


@needs("at_least_once", "dead_letters")
async def test_a_batch_may_fail_in_part(harness: Harness) -> None:
    got = Batches()

    async def bulk(batch: Batch[Any], context: Context) -> None:
        got.note(batch)
        bad = {i: ValueError(f"no {t.number}") for i, t in enumerate(batch) if t.number == 3}
        got.done += [task.number for task in batch if task.number != 3]
        if bad:
            raise BatchFailed(bad)

    async with harness.running(handler("Bulk", bulk)) as service:
        await harness.send(*range(5))
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("tasks", "bulk")
        )
        await harness.settled(service)
        await harness.quiet()
    assert pb.Task.FromString(dead_letter.payload).number == 3
    assert dead_letter.metadata[wire.PF_ERROR_MESSAGE] == "no 3"
    assert dead_letter.metadata[wire.PF_ATTEMPT] == "3"
    assert got.attempts[3] == [1, 2, 3]
    assert sorted(got.done) == [0, 1, 2, 4]


@needs("at_least_once", "dead_letters")
async def test_outcomes_may_be_given_for_single_messages(harness: Harness) -> None:
    got = Batches()

    async def bulk(batch: Batch[Any], context: Context) -> None:
        got.note(batch)
        raise BatchFailed(
            {
                index: Unprocessable("invalid") if task.number == 1 else Skip("known")
                for index, task in enumerate(batch)
                if task.number in (1, 2)
            }
        )

    async with harness.running(handler("Bulk", bulk)) as service:
        await harness.send(1, 2)
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("tasks", "bulk")
        )
        await harness.until(lambda: service.stats()[method("Bulk")].skipped == 1)
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "validation"
    assert got.attempts == {1: [1], 2: [1]}


@needs("at_least_once", "dead_letters")
async def test_a_batch_that_fails_as_a_whole_blames_nobody_but_the_culprit(
    harness: Harness,
) -> None:
    got = Batches()

    async def bulk(batch: Batch[Any], context: Context) -> None:
        got.note(batch)
        if any(task.number == 2 for task in batch):
            raise ValueError("one of them is bad")
        got.done += [task.number for task in batch]

    async with harness.running(handler("Bulk", bulk)) as service:
        await harness.send(*range(5))
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("tasks", "bulk")
        )
        await harness.settled(service)
    assert pb.Task.FromString(dead_letter.payload).number == 2
    assert dead_letter.metadata[wire.PF_ATTEMPT] == "3"
    assert sorted(got.done) == [0, 1, 3, 4]
    for number in (0, 1, 3, 4):
        assert set(got.attempts[number]) == {1}, "a neighbour was blamed"


@needs("at_least_once", "dead_letters")
async def test_what_cannot_be_decoded_never_reaches_the_handler(harness: Harness) -> None:
    got = Batches()
    async with harness.running(handler("Bulk", got.ok)):
        await harness.send(1, 2)
        await harness.publish("tasks", b"\xff\xff\xff", metadata=task_metadata())
        await harness.send(3)
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("tasks", "bulk")
        )
        await harness.until(lambda: len(got.done) == 3)
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "decode"
    assert sorted(got.done) == [1, 2, 3]
    assert all(attempts == [1] for attempts in got.attempts.values())


async def test_one_output_for_a_batch(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def bulk(batch: Batch[Any], context: Context) -> Any:
        return pb.Done(number=sum(task.number for task in batch))

    async with harness.running(handler("BulkSum", bulk)) as service:
        await harness.send(*range(10))
        await harness.until(lambda: service.stats()[method("BulkSum")].handled == 10)
        await harness.until(lambda: sum(tasks(watcher.messages)) == 45)


@needs("at_least_once")
async def test_outputs_of_a_batch_are_confirmed_before_any_of_it_is_acknowledged(
    harness: Harness,
) -> None:
    watcher = await harness.watch("done")

    async def bulk(batch: Batch[Any], context: Context) -> Any:
        return pb.Done(number=sum(task.number for task in batch))

    policy = DeliveryPolicy(retry=RetryPolicy(max_attempts=50))
    service = harness.service(handler("BulkSum", bulk), faulty=True, policy=policy)
    async with service:
        faulty_of(service).rule = topic_fails(harness.physical("done"))
        await harness.send(1, 2, 3)
        await harness.until(lambda: len(faulty_of(service).refused) >= 2)
        assert service.stats()[method("BulkSum")].handled == 0
        faulty_of(service).rule = nothing_fails
        await harness.until(lambda: sum(tasks(watcher.messages)) == 6)
        await harness.until(lambda: service.stats()[method("BulkSum")].handled == 3)


async def test_an_output_names_the_input_that_caused_it(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def bulk(batch: Batch[Any], context: Context) -> AsyncIterator[Any]:
        for task in batch:
            yield Output(pb.Done(number=task.number), caused_by=task)

    async with harness.running(handler("BulkSplit", bulk)):
        ids = await harness.send(*range(7))
        messages = await watcher.exactly(7)
    cause = {
        number: message.metadata[wire.CAUSATION_ID]
        for number, message in zip(tasks(messages), messages, strict=True)
    }
    assert cause == dict(enumerate(ids))
    assert len({message.id for message in messages}) == 7


@needs("at_least_once", "dead_letters")
async def test_outputs_of_failed_messages_are_dropped_and_those_of_the_others_go_out(
    harness: Harness,
) -> None:
    watcher = await harness.watch("done")

    async def bulk(batch: Batch[Any], context: Context) -> None:
        producer = pf.SuiteEventProducer(context)
        for task in batch:
            await producer.publish_done_many([Output(pb.Done(number=task.number), caused_by=task)])
        raise BatchFailed({i: ValueError() for i, task in enumerate(batch) if task.number % 2})

    async with harness.running(handler("Bulk", bulk)) as service:
        await harness.send(*range(4))
        await harness.dead_letter_messages(2, harness.dead_letter_topic("tasks", "bulk"))
        await harness.settled(service)
        messages = await watcher.exactly(2)
    assert sorted(tasks(messages)) == [0, 2]


async def test_what_is_published_through_an_items_context_goes_out(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def bulk(batch: Batch[Any], context: Context) -> None:
        for task, own in zip(batch, batch.contexts, strict=True):
            await pf.SuiteEventProducer(own).publish_done(pb.Done(number=task.number))

    async with harness.running(handler("Bulk", bulk)):
        ids = await harness.send(1, 2)
        messages = await watcher.exactly(2)
    causes = {message.metadata[wire.CAUSATION_ID] for message in messages}
    assert causes == set(ids)


@needs("per_key")
async def test_batches_of_one_key_come_in_order_and_never_overlap(harness: Harness) -> None:
    running: set[str] = set()
    order: dict[str, list[int]] = {}

    async def bulk(batch: Batch[Any], context: Context) -> None:
        keys = {task.key for task in batch}
        assert not keys & running, "two batches have one key at once"
        running.update(keys)
        await asyncio.sleep(0.005)
        for task in batch:
            order.setdefault(task.key, []).append(task.number)
        running.difference_update(keys)

    async with harness.running(handler("BulkKeyed", bulk)) as service:
        for number in range(60):
            await harness.send(number, key=f"k{number % 3}")
        await harness.until(lambda: sum(map(len, order.values())) >= 60)
        await harness.settled(service)
        assert service.stats()[method("BulkKeyed")].failed_runs == 0
    assert order == {f"k{key}": list(range(key, 60, 3)) for key in range(3)}


@needs("per_key", "at_least_once")
async def test_a_failed_message_of_a_batch_takes_the_later_ones_of_its_key_back(
    harness: Harness,
) -> None:
    order: dict[str, list[int]] = {}
    failed: set[int] = set()

    async def bulk(batch: Batch[Any], context: Context) -> None:
        errors: dict[int, Exception] = {}
        broken: set[str] = set()
        for index, task in enumerate(batch):
            if task.number % 4 == 1 and task.number not in failed:
                failed.add(task.number)
                errors[index] = ValueError(str(task.number))
                broken.add(task.key)
            elif task.key not in broken:
                order.setdefault(task.key, []).append(task.number)
        if errors:
            raise BatchFailed(errors)

    async with harness.running(handler("BulkKeyed", bulk)) as service:
        for number in range(40):
            await harness.send(number, key=f"k{number % 2}")
        await harness.until(lambda: sum(map(len, order.values())) >= 40)
        await harness.settled(service)
    assert order == {f"k{key}": list(range(key, 40, 2)) for key in range(2)}


@needs("per_key", "at_least_once", "dead_letters")
async def test_a_batch_of_one_key_that_fails_as_a_whole_is_redone_in_order(
    harness: Harness,
) -> None:
    order: list[int] = []

    async def bulk(batch: Batch[Any], context: Context) -> None:
        if len(batch) > 1:
            raise ValueError("all of them")
        if batch[0].number == 2:
            raise ValueError("this one")
        order.append(batch[0].number)

    async with harness.running(handler("BulkKeyed", bulk)):
        await harness.send(*range(5), key="k")
        await harness.until(lambda: len(order) == 4)
        await harness.dead_letter_messages(1, harness.dead_letter_topic("tasks", "bulk-keyed"))
    assert order == [0, 1, 3, 4]


async def test_shutdown_gives_back_what_is_gathered_and_not_begun(harness: Harness) -> None:
    harness.require("at_least_once")
    got = Batches()
    slow = handler("Bulk", got.ok)
    async with harness.running(slow) as service:
        await harness.send(1, 2)
        await harness.until(lambda: service.subscriptions[0].in_flight.received >= 2 or got.done)
    async with harness.running(handler("Bulk", got.ok)):
        await harness.until(lambda: sorted(set(got.done)) == [1, 2])
    assert sorted(got.done) == [1, 2]
    assert all(set(attempts) == {1} for attempts in got.attempts.values())
