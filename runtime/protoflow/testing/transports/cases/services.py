"""A service handles, retries and dead-letters messages in order, also after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from google.protobuf.wrappers_pb2 import StringValue

from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, Ordering, RetryPolicy
from protoflow.testing.transports.harness import TransportHarness, needs, numbers
from protoflow.testing.transports.service_harness import Runs, ServiceHarness

#: The lease in seconds, after which messages of a killed process are redelivered.
LEASE = 2.0
TASKS = [number.decode() for number in numbers(0, 20)]


@pytest_asyncio.fixture
async def services(harness: TransportHarness, tmp_path: Path) -> AsyncIterator[ServiceHarness]:
    """Provides the services of one case, and a connection that publishes to them."""
    services = ServiceHarness(harness, tmp_path)
    async with services.connection:
        yield services


async def test_a_service_handles_what_is_published(services: ServiceHarness) -> None:
    runs = Runs()
    async with services.running(runs.work):
        await services.send(*TASKS)
        await services.until(lambda: len(runs.done) == len(TASKS))
    async with services.running(runs.work):
        await asyncio.sleep(0.2)
    assert sorted(runs.done) == sorted(TASKS)
    assert {attempt for _, attempt in runs.seen} == {1}


@needs("groups")
async def test_every_group_handles_every_message(services: ServiceHarness) -> None:
    first, second = Runs(), Runs()
    other = services.harness.group("others")
    async with services.running(first.work), services.running(second.work, group=other):
        await services.send(*TASKS)
        await services.until(lambda: len(first.done) + len(second.done) == 2 * len(TASKS))
    assert sorted(first.done) == sorted(second.done) == sorted(TASKS)


@needs("at_least_once")
async def test_a_failed_run_is_repeated(services: ServiceHarness) -> None:
    runs = Runs(failures=2)
    async with services.running(runs.work):
        await services.send("7")
        await services.until(lambda: runs.done)
    assert runs.seen == [("7", 1), ("7", 2), ("7", 3)]


@needs("at_least_once", "broker_retry")
async def test_the_broker_keeps_a_long_wait(services: ServiceHarness) -> None:
    runs = Runs(failures=1)
    retry = RetryPolicy(max_attempts=3, initial_backoff=1.0, jitter=0.0)
    loop = asyncio.get_running_loop()
    ladder = (1.0,)
    async with services.running(
        runs.work, DeliveryPolicy(retry=retry), retry_in_place=0.0, retry_ladder=ladder
    ):
        await services.send("7")
        await services.until(lambda: runs.seen)
        started = loop.time()
        patience = 10 + services.harness.capabilities.retry_lateness
        await services.until(lambda: runs.done, within=patience)
        assert loop.time() - started > 0.9
    assert runs.seen == [("7", 1), ("7", 2)]


@needs("at_least_once", "dead_letters")
async def test_exhausted_retries_end_in_a_dead_letter(services: ServiceHarness) -> None:
    runs = Runs(failures=99)
    async with services.running(runs.work):
        (id,) = await services.send("7")
        await services.dead(1)
    assert runs.seen == [("7", 1), ("7", 2), ("7", 3)]
    (dead,) = await services.dead_letters.list(services.dead_letter_topic)
    assert dead.message.id == id
    assert StringValue.FromString(dead.message.payload or b"").value == "7"
    assert dead.message.metadata[wire.PF_ORIGINAL_TOPIC] == services.topic
    assert dead.message.metadata[wire.PF_GROUP] == services.group
    assert dead.message.metadata[wire.PF_ATTEMPT] == "3"


@needs("at_least_once", "dead_letters")
async def test_an_unreadable_message_is_dead_lettered_at_once(services: ServiceHarness) -> None:
    runs = Runs()
    async with services.running(runs.work):
        await services.harness.send(services.topic, b"\xff\xff")
        await services.dead(1)
    assert runs.seen == []


@needs("at_least_once", "dead_letters")
async def test_a_replayed_dead_letter_is_handled_by_its_group(services: ServiceHarness) -> None:
    failing, runs = Runs(failures=99), Runs()
    async with services.running(failing.work):
        (id,) = await services.send("7")
        await services.dead(1)
    async with services.running(runs.work):
        await services.dead_letters.replay(services.dead_letter_topic, [id])
        await services.until(lambda: runs.done)
        await services.dead(0)
    assert runs.seen == [("7", 1)]


async def test_a_result_is_published(services: ServiceHarness) -> None:
    async def double(task: StringValue, _context: Context) -> StringValue:
        return StringValue(value=task.value * 2)

    results = services.harness.topic("results")
    reader = await services.harness.join(results)
    async with services.running(double, results=results):
        await services.send("7")
        (delivery,) = await reader.take(1)
        await reader.ack(delivery)
    assert StringValue.FromString(delivery.message.payload or b"").value == "77"


@needs("at_least_once", "per_key")
async def test_a_key_keeps_its_order_while_runs_fail(services: ServiceHarness) -> None:
    done: list[str] = []
    failed: set[str] = set()

    async def work(task: StringValue, _context: Context) -> None:
        if int(task.value) % 3 == 0 and task.value not in failed:
            failed.add(task.value)
            raise ValueError("on purpose")
        done.append(task.value)

    retry = RetryPolicy(max_attempts=3, initial_backoff=0.01, jitter=0.0)
    policy = DeliveryPolicy(ordering=Ordering.PER_KEY, retry=retry)
    async with services.running(work, policy):
        await services.send(*TASKS, key="k")
        await services.until(lambda: len(done) == len(TASKS))
    assert done == TASKS


async def test_concurrency_is_bounded_and_reached(services: ServiceHarness) -> None:
    running, most, done = 0, 0, 0

    async def work(_task: StringValue, _context: Context) -> None:
        nonlocal running, most, done
        running += 1
        most = max(most, running)
        async with asyncio.timeout(10 * services.harness.target.patience):
            while most < 3:  # the others must begin while this one runs
                await asyncio.sleep(0.01)
        running -= 1
        done += 1

    retry = RetryPolicy(max_attempts=3, initial_backoff=0.01, jitter=0.0)
    async with services.running(work, DeliveryPolicy(concurrency=3, retry=retry)):
        await services.send(*TASKS)
        await services.until(lambda: done == len(TASKS), within=20)
    assert most >= 3
    # Without this capability, the fixture uses another policy.
    if services.harness.capabilities.at_least_once:
        assert most == 3


@needs("at_least_once")
async def test_a_shutdown_finishes_what_runs_and_gives_back_the_rest(
    services: ServiceHarness,
) -> None:
    began, done, runs = asyncio.Event(), 0, Runs()

    async def slow(_task: StringValue, _context: Context) -> None:
        nonlocal done
        began.set()
        await asyncio.sleep(0.3)
        done += 1

    retry = RetryPolicy(max_attempts=3, initial_backoff=0.01, jitter=0.0)
    async with services.running(slow, DeliveryPolicy(concurrency=1, retry=retry)):
        await services.send(*TASKS)
        await asyncio.wait_for(began.wait(), 10 * services.harness.target.patience)
    assert 1 <= done < len(TASKS)
    async with services.running(runs.work):
        await services.until(lambda: len(runs.done) == len(TASKS) - done)
        await asyncio.sleep(0.2)
    assert len(runs.done) == len(TASKS) - done
    assert {attempt for _, attempt in runs.seen} == {1}


@needs("at_least_once", "persists_attempts", "broker_retry")
async def test_failed_runs_are_counted_over_a_restart(services: ServiceHarness) -> None:
    first, second = Runs(failures=1), Runs()
    retry = RetryPolicy(max_attempts=3, initial_backoff=1.0, jitter=0.0)
    policy = DeliveryPolicy(retry=retry)
    async with services.running(first.work, policy, retry_in_place=0.0, retry_ladder=(1.0,)):
        await services.send("7")
        await services.until(lambda: first.seen)
    if services.harness.capabilities.durable:
        await services.harness.reopen()
    async with services.running(second.work, policy, retry_in_place=0.0, retry_ladder=(1.0,)):
        patience = 10 + services.harness.capabilities.retry_lateness
        await services.until(lambda: second.done, within=patience)
    assert second.seen == [("7", 2)]


@needs("at_least_once", "durable", "processes")
async def test_what_a_killed_process_was_handling_is_handled_again(
    services: ServiceHarness,
) -> None:
    runs = Runs()
    await services.prepare()
    await services.send("7")
    assert await services.kill_while_handling(lease=LEASE) == ["7 1"]
    async with services.running(runs.work, lease=LEASE):
        await services.until(lambda: runs.done, within=20)
    assert runs.seen == [("7", 1)], "a crash does not count as a failed run"
