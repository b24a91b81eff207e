"""Streams of outputs: windows, failures in the middle, generators closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.errors import PublishError
from protoflow.message import Message
from protoflow.output import Output
from protoflow.sync_context import SyncContext

from tests.acceptance.contract import pb
from tests.acceptance.faulty import faulty_of
from tests.acceptance.harness import Harness, handler, method, sync_handler, tasks

needs = pytest.mark.needs


async def test_every_output_of_a_generator_goes_out(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def split(task: Any, context: Context) -> AsyncIterator[Any]:
        for number in range(task.number):
            yield pb.Done(number=number, key="k")

    async with harness.running(handler("Split", split)) as service:
        (id,) = await harness.send(300)
        messages = await watcher.exactly(300)
        await harness.until(lambda: service.stats()[method("Split")].handled == 1)
    assert sorted(tasks(messages)) == list(range(300))
    if harness.capabilities.per_key:
        assert tasks(messages) == list(range(300))
    assert {message.metadata[wire.CAUSATION_ID] for message in messages} == {id}
    assert len({message.id for message in messages}) == 300


async def test_a_generator_in_a_thread(harness: Harness) -> None:
    watcher = await harness.watch("done")
    closed = []

    def split(task: Any, context: SyncContext) -> Iterator[Any]:
        try:
            for number in range(task.number):
                yield pb.Done(number=number)
        finally:
            closed.append(True)

    async with harness.running(sync_handler("Split", split)):
        await harness.send(100)
        messages = await watcher.exactly(100)
    assert sorted(tasks(messages)) == list(range(100))
    assert closed == [True]


async def test_an_empty_generator_publishes_nothing_and_is_done(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def split(task: Any, context: Context) -> AsyncIterator[Any]:
        for _ in ():
            yield pb.Done()

    async with harness.running(handler("Split", split)) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Split")].handled == 1)
        await watcher.exactly(0)


@needs("at_least_once")
async def test_a_redone_stream_repeats_its_ids(harness: Harness) -> None:
    watcher = await harness.watch("done")
    attempts = []

    async def split(task: Any, context: Context) -> AsyncIterator[Any]:
        attempts.append(context.attempt)
        for number in range(150):
            if number == 100 and context.attempt == 1:
                raise ValueError("in the middle")
            yield Output(pb.Done(number=number))

    async with harness.running(handler("Split", split)) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Split")].handled == 1)
        await harness.quiet()
    assert attempts == [1, 2]
    by_id = {message.id: pb.Done.FromString(message.payload).number for message in watcher.messages}
    assert sorted(by_id.values()) == list(range(150))
    if harness.always_atomic:
        assert len(watcher.messages) == 150, "all or nothing, where outputs are atomic"


@needs("at_least_once", "dead_letters", "atomic")
async def test_all_or_nothing_where_atomic(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def split(task: Any, context: Context) -> AsyncIterator[Any]:
        for number in range(150):
            yield pb.Done(number=number)
        raise ValueError("at the end")

    async with harness.running(handler("Split", split), policy=DeliveryPolicy(atomic=True)):
        await harness.send(1)
        await harness.dead_letter_messages(1, harness.dead_letter_topic("tasks", "suite.v1.Split"))
        await watcher.exactly(0)


@needs("at_least_once")
async def test_the_input_is_acknowledged_after_the_last_confirmation(harness: Harness) -> None:
    watcher = await harness.watch("done")
    runs = []

    async def split(task: Any, context: Context) -> AsyncIterator[Any]:
        runs.append(context.attempt)
        for number in range(100):
            yield pb.Done(number=number)

    def last_fails(message: Message) -> Any:
        done = message.topic == harness.physical("done")
        last = done and pb.Done.FromString(message.payload).number == 99
        return PublishError("full") if last and len(faulty_of(service).refused) < 3 else None

    service = harness.service(
        handler("Split", split),
        faulty=True,
        policy=DeliveryPolicy(retry=RetryPolicy(max_attempts=9)),
    )
    async with service:
        faulty_of(service).rule = last_fails
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Split")].handled == 1)
        await harness.quiet()
    assert len(faulty_of(service).refused) == 3
    assert runs == [1], "the same outputs are published again, the handler is not run again"
    numbers = {
        message.id: pb.Done.FromString(message.payload).number for message in watcher.messages
    }
    assert sorted(numbers.values()) == list(range(100))


@needs("at_least_once")
async def test_the_generator_is_closed_on_failure_of_its_outputs_and_on_timeouts(
    harness: Harness,
) -> None:
    closed = []

    async def split(task: Any, context: Context) -> AsyncIterator[Any]:
        try:
            yield pb.Done(number=1)
            await asyncio.sleep(30)
        finally:
            closed.append(context.attempt)

    policy = DeliveryPolicy(timeout=0.1, retry=RetryPolicy(max_attempts=2))
    async with harness.running(handler("Split", split), policy=policy) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Split")].failed_runs == 2)
    assert closed == [1, 2]


async def test_the_generator_is_closed_at_shutdown(harness: Harness) -> None:
    harness.require("at_least_once")
    closed = []
    begun = []

    async def split(task: Any, context: Context) -> AsyncIterator[Any]:
        begun.append(1)
        try:
            yield pb.Done(number=1)
            await asyncio.sleep(30)
        finally:
            closed.append(1)

    async with harness.running(handler("Split", split), shutdown_timeout=0.1):
        await harness.send(1)
        await harness.until(lambda: begun)
    assert closed == [1]


@needs("at_least_once", "dead_letters")
async def test_a_handler_that_is_no_generator_fails_with_a_sentence(harness: Harness) -> None:
    def split(
        task: Any, context: SyncContext
    ) -> Any:  # it may return an iterator, so only a call shows it
        return None

    async with harness.running(handler("Split", split)):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("tasks", "suite.v1.Split")
        )
    assert dead_letter.metadata[wire.PF_ERROR_TYPE] == "TypeError"
    assert "asynchronous generator" in dead_letter.metadata[wire.PF_ERROR_MESSAGE]
