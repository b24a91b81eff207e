"""Failed runs are counted, repeated after their wait, and exhaust into the dead letters."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, OnExhausted, RetryPolicy
from protoflow.outcomes import DeadLetter, Retry, RetryAfter, Skip, Unprocessable
from protoflow.sync_context import SyncContext

from tests.acceptance.contract import pb, pf
from tests.acceptance.harness import (
    Harness,
    Seen,
    failing,
    handler,
    method,
    sync_handler,
    task_metadata,
)

needs = pytest.mark.needs
pytestmark = needs("at_least_once")

#: Clocks of broker and client may differ by this much, in seconds.
SKEW = 0.02


def retry(**fields: Any) -> DeliveryPolicy:
    return DeliveryPolicy(retry=RetryPolicy(**fields))


@needs("dead_letters")
async def test_a_failing_message_is_run_as_often_as_allowed_and_then_dead_lettered(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    before = time.time()
    async with harness.running(handler("Work", seen.fails)) as service:
        sent = await harness.publish(
            "tasks",
            pb.Task(number=7, key="k", note="n").SerializeToString(),
            id="m-7",
            key=b"k",
            metadata=task_metadata(color="red", correlation_id="c-7"),
        )
        (dead_letter,) = await harness.dead_letter_messages(1)
        await harness.settled(service)
        stats = service.stats()[method("Work")]
        assert (stats.failed_runs, stats.retried, stats.dead_lettered) == (3, 2, 1)
    assert seen.runs == [(7, 1), (7, 2), (7, 3)]
    assert (dead_letter.id, dead_letter.payload, dead_letter.key) == ("m-7", sent.payload, b"k")
    metadata = dead_letter.metadata
    assert {name: metadata[name] for name in sent.metadata} == dict(sent.metadata)
    assert metadata[wire.PF_DEAD_LETTER] == "true"
    assert metadata[wire.PF_ERROR_CLASS] == "exhausted"
    assert metadata[wire.PF_ERROR_TYPE] == "ValueError"
    assert metadata[wire.PF_ERROR_MESSAGE] == "task 7 is bad"
    assert metadata[wire.PF_ORIGINAL_TOPIC] == harness.physical("tasks")
    assert metadata[wire.PF_ORIGINAL_POSITION] != ""
    assert wire.PF_ORIGINAL_SHARD in metadata
    assert metadata[wire.PF_GROUP] == harness.physical("workers")
    assert metadata[wire.PF_HANDLER] == "suite.v1.Work.Work"
    assert metadata[wire.PF_ATTEMPT] == "3"
    first = float(metadata[wire.PF_FIRST_FAILURE])
    last = float(metadata[wire.PF_DEAD_LETTERED_AT])
    assert before - 1 <= first <= last <= time.time() + 1


async def test_a_message_that_works_at_last_is_no_dead_letter(harness: Harness) -> None:
    seen = Seen(harness)
    work = failing(ValueError, 2, seen)
    async with harness.running(handler("Work", work)) as service:
        await harness.send(1)
        await harness.until(lambda: seen.done == [1])
        await harness.settled(service)
        stats = service.stats()[method("Work")]
        assert (stats.handled, stats.failed_runs, stats.dead_lettered) == (1, 2, 0)
        await harness.quiet()
    assert seen.runs == [(1, 1), (1, 2), (1, 3)]
    if harness.capabilities.dead_letters:
        assert await harness.dead_letter_messages(0) == []


async def test_what_was_settled_never_comes_again(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)) as service:
        await harness.send(*range(10))
        await seen.until(10)
        await harness.settled(service)
    async with harness.running(handler("Work", seen.ok)):
        await harness.quiet(0.5)
    assert sorted(seen.numbers) == list(range(10))


@needs("dead_letters")
@pytest.mark.parametrize(
    ("error", "category", "text"),
    [
        (Unprocessable("no such customer"), "validation", "no such customer"),
        (DeadLetter("not for us"), "handler", "not for us"),
    ],
    ids=["Unprocessable", "DeadLetter"],
)
async def test_a_handler_may_give_up_at_once(
    harness: Harness, error: Exception, category: str, text: str
) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", failing(error, 99, seen))):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert seen.attempts == [1]
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == category
    assert dead_letter.metadata[wire.PF_ERROR_MESSAGE] == text
    assert dead_letter.metadata[wire.PF_ATTEMPT] == "1"


async def test_a_handler_may_skip(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(
        handler("Work", failing(Skip("known already"), 99, seen))
    ) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Work")].skipped == 1)
        await harness.settled(service)
    async with harness.running(handler("Work", seen.ok)):
        await harness.quiet()
    assert seen.runs == [(1, 1)]


@pytest.mark.parametrize("error", [Retry("later"), RetryAfter(0.05, "later")])
async def test_a_handler_may_ask_for_another_run(harness: Harness, error: Exception) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", failing(error, 1, seen))):
        await harness.send(1)
        await harness.until(lambda: seen.done == [1])
    assert seen.attempts == [1, 2]


@needs("dead_letters")
async def test_asking_for_another_run_counts_as_an_attempt(harness: Harness) -> None:
    seen = Seen(harness)
    work = failing(RetryAfter(timedelta(milliseconds=10), "never enough"), 99, seen)
    async with harness.running(handler("Work", work)):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert seen.attempts == [1, 2, 3]
    assert dead_letter.metadata[wire.PF_ERROR_MESSAGE] == "never enough"


async def test_the_wait_between_runs_is_the_policys(harness: Harness) -> None:
    at = []

    async def work(task: Any, context: Context) -> None:
        at.append(time.monotonic())
        raise ValueError

    policy = retry(initial_backoff=0.2, backoff_multiplier=2.0, max_backoff=0.3, max_attempts=4)
    async with harness.running(handler("Work", work), policy=policy):
        await harness.send(1)
        await harness.until(lambda: len(at) == 4)
    waits = [later - earlier for earlier, later in itertools.pairwise(at)]
    for wait, least in zip(waits, (0.2, 0.3, 0.3), strict=True):
        assert least - SKEW <= wait < least + 1.0 * harness.patience


async def test_a_waiting_message_holds_no_worker(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if task.number < 4:
            raise RetryAfter(1.0)
        seen.done.append(task.number)

    policy = DeliveryPolicy(concurrency=1)
    settings = {"max_in_flight": 64, "shutdown_timeout": 0.2}
    async with harness.running(handler("Work", work), policy=policy, **settings):
        await harness.send(*range(20))
        await harness.until(lambda: len(seen.done) == 16)
        assert set(seen.attempts) == {1}


@needs("broker_retry", "dead_letters")
async def test_a_wait_beyond_retry_in_place_is_kept_by_the_broker_and_never_early(
    harness: Harness,
) -> None:
    at = []

    async def work(task: Any, context: Context) -> None:
        at.append((context.attempt, time.monotonic()))
        raise RetryAfter(1.2, "not yet")

    settings = {"retry_in_place": 0.1, "retry_ladder": (0.5, 1.0)}
    async with harness.running(
        handler("Work", work), policy=retry(max_attempts=2), **settings
    ) as s:
        sent = await harness.publish(
            "tasks", pb.Task(number=1).SerializeToString(), metadata=task_metadata(a="b")
        )
        await harness.until(lambda: at)
        await harness.until(
            lambda: s.subscriptions[0].in_flight.count == 0, what="the wait is held here"
        )
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert [attempt for attempt, _ in at] == [1, 2]
    wait = at[1][1] - at[0][1]
    assert 1.2 - SKEW <= wait < 1.2 + harness.capabilities.retry_lateness + 2.0 * harness.patience
    assert dead_letter.id == sent.id
    assert dead_letter.metadata[wire.PF_ATTEMPT] == "2"
    assert dead_letter.metadata["a"] == "b"
    assert wire.PF_DUE not in dead_letter.metadata
    assert dead_letter.metadata[wire.PF_ORIGINAL_TOPIC] == harness.physical("tasks")


@needs("broker_retry")
async def test_a_retry_by_the_broker_reaches_no_other_group(harness: Harness) -> None:
    work, audit = Seen(harness), Seen(harness)
    settings = {"retry_in_place": 0.0, "retry_ladder": (0.2,)}
    async with harness.running(
        handler("Work", failing(RetryAfter(0.2), 1, work)), handler("Audit", audit.ok), **settings
    ):
        await harness.send(1)
        await harness.until(lambda: work.done == [1])
        await harness.quiet()
    assert work.attempts == [1, 2]
    assert audit.runs == [(1, 1)]


@needs("broker_retry", "dead_letters")
async def test_attempts_survive_a_restart(harness: Harness) -> None:
    seen = Seen(harness)
    settings = {"retry_in_place": 0.0, "retry_ladder": (0.3,), "policy": retry(max_attempts=3)}
    work = failing(RetryAfter(0.3), 99, seen)
    async with harness.running(handler("Work", work), **settings) as service:
        await harness.send(1)
        await seen.until(1)
        await harness.settled(service)
    async with harness.running(handler("Work", work), **settings):
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert seen.attempts == [1, 2, 3]
    assert dead_letter.metadata[wire.PF_ATTEMPT] == "3"


@needs("persists_attempts")
async def test_failed_runs_in_place_survive_a_restart_where_the_store_remembers(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    policy = retry(initial_backoff=3.0, max_backoff=3.0, max_attempts=3)
    work = failing(ValueError, 99, seen)
    async with harness.running(handler("Work", work), policy=policy):
        await harness.send(1)
        await seen.until(1)
        await harness.quiet(0.1)
    async with harness.running(handler("Work", work), policy=policy):
        await seen.until(2)
    assert seen.attempts == [1, 2]


@needs("broker_retry")
async def test_attempts_of_another_group_are_not_believed(harness: Harness) -> None:
    seen = Seen(harness)
    foreign = {wire.PF_GROUP: "somebody", wire.PF_ATTEMPT: "2", wire.PF_DUE: "99999999999"}
    async with harness.running(handler("Work", seen.ok)):
        await harness.publish(
            "tasks", pb.Task().SerializeToString(), metadata=task_metadata(**foreign)
        )
        await seen.until(1)
    assert seen.attempts == [1]


@needs("dead_letters")
async def test_max_elapsed_ends_the_retries_early(harness: Harness) -> None:
    seen = Seen(harness)
    policy = retry(max_attempts=50, initial_backoff=0.1, max_backoff=0.1, max_elapsed=0.45)
    async with harness.running(handler("Work", seen.fails), policy=policy):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert 2 <= len(seen.runs) <= 5
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "exhausted"
    first = float(dead_letter.metadata[wire.PF_FIRST_FAILURE])
    assert float(dead_letter.metadata[wire.PF_DEAD_LETTERED_AT]) - first <= 0.45 + harness.patience


async def test_drop_acknowledges_counts_and_logs(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(harness)
    policy = DeliveryPolicy(dead_letter=DeadLetterPolicy(on_exhausted=OnExhausted.DROP))
    async with harness.running(handler("Work", seen.fails), policy=policy) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Work")].dropped == 1)
        await harness.settled(service)
    async with harness.running(handler("Work", seen.fails), policy=policy):
        await harness.quiet()
    assert seen.attempts == [1, 2, 3]
    assert any("dropped" in record.getMessage() for record in caplog.records)
    if harness.capabilities.dead_letters:
        assert await harness.dead_letter_messages(0) == []


async def test_block_tries_for_ever_and_degrades_readiness(harness: Harness) -> None:
    seen = Seen(harness)
    fixed = False

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        if task.number == 1 and not fixed:
            raise ValueError("the database is down")
        seen.done.append(task.number)

    policy = DeliveryPolicy(
        retry=RetryPolicy(max_attempts=2, initial_backoff=0.02, max_backoff=0.02),
        dead_letter=DeadLetterPolicy(on_exhausted=OnExhausted.BLOCK),
    )
    async with harness.running(handler("Work", work), policy=policy) as service:
        assert service.health().ready
        await harness.send(1, 2)
        await seen.until(8)
        await harness.until(lambda: not service.health().ready)
        assert "block" in str(service.health().problems)
        assert service.health().live
        fixed = True
        await harness.until(lambda: sorted(seen.done) == [1, 2])
        await harness.until(lambda: service.health().ready)
    assert max(seen.attempts) > 2
    if harness.capabilities.dead_letters:
        assert await harness.dead_letter_messages(0) == []


@needs("per_key")
async def test_block_holds_its_key_and_no_other(harness: Harness) -> None:
    seen = Seen(harness)
    fixed = False

    async def work(task: Any, context: Context) -> None:
        if task.number == 1 and not fixed:
            raise ValueError
        seen.note(task, context)

    policy = DeliveryPolicy(
        retry=RetryPolicy(max_attempts=1, initial_backoff=0.02, max_backoff=0.02),
        dead_letter=DeadLetterPolicy(on_exhausted=OnExhausted.BLOCK),
    )
    async with harness.running(handler("Keyed", work), policy=policy):
        await harness.send(1, 2, key="a")
        await harness.send(3, key="b")
        await seen.until(1)
        await harness.quiet(0.1)
        assert seen.numbers == [3]
        fixed = True
        await seen.until(3)
    assert seen.numbers == [3, 1, 2]


@needs("dead_letters")
async def test_a_run_that_takes_too_long_is_cancelled_and_counted(harness: Harness) -> None:
    seen = Seen(harness)
    cancelled = []

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        assert context.deadline is not None
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(task.number)
            raise

    policy = DeliveryPolicy(timeout=0.1, retry=RetryPolicy(max_attempts=2))
    async with harness.running(handler("Work", work), policy=policy):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert seen.attempts == [1, 2]
    assert cancelled == [1, 1]
    assert dead_letter.metadata[wire.PF_ERROR_TYPE] == "TimeoutError"
    assert dead_letter.metadata[wire.PF_ERROR_MESSAGE] == "timed out after 0.1 s [PF505]"


@pytest.mark.real_time
async def test_a_thread_that_takes_too_long_is_held_until_it_ends(harness: Harness) -> None:
    running = 0
    most = 0
    attempts = []
    reported = []
    lock = threading.Lock()

    def work(task: Any, context: SyncContext) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        attempts.append(context.attempt)
        if context.attempt == 1:
            reported.append(context.cancelled.wait(10))
            time.sleep(0.3)
        with lock:
            running -= 1

    policy = DeliveryPolicy(timeout=0.1)
    async with harness.running(sync_handler("Work", work), policy=policy) as service:
        await harness.send(1)
        await harness.until(lambda: attempts == [1, 2])
        await harness.settled(service)
    assert reported == [True]
    assert most == 1, "a run began while the one before was not over"


@needs("dead_letters")
async def test_a_handlers_own_cancellation_is_a_failure(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        raise asyncio.CancelledError

    async with harness.running(handler("Work", work)):
        await harness.send(1)
        await harness.dead_letter_messages(1)
    assert seen.attempts == [1, 2, 3]


@needs("dead_letters")
async def test_an_error_of_a_middleware_is_retried_and_dead_lettered(harness: Harness) -> None:
    seen = Seen(harness)
    passes = []

    def broken(next: Any, spec: Any) -> Any:
        async def run(delivery: Any, context: Context) -> None:
            passes.append(context.attempt)
            raise LookupError("a middleware is broken")

        return run

    from protoflow.middleware import default_chain

    chain = default_chain().add("broken", broken, before="poison_queue")
    async with harness.running(handler("Work", seen.ok), options={"middleware": chain}):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert passes == [1, 2, 3]
    assert seen.runs == []
    assert dead_letter.metadata[wire.PF_ERROR_TYPE] == "LookupError"


@needs("dead_letters")
async def test_sensitive_values_reach_neither_the_dead_letter_nor_the_log(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(task: Any, context: Context) -> None:
        raise ValueError(f"cannot charge {task.secret}")

    caplog.set_level("DEBUG", "protoflow")
    async with harness.running(handler("Work", work)):
        await harness.send(1, secret="hush-hush-4111")
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert dead_letter.metadata[wire.PF_ERROR_MESSAGE] == "cannot charge ***"
    text = caplog.text + "".join(str(record.__dict__) for record in caplog.records)
    assert "hush" not in text
    assert "cannot charge ***" in caplog.text


@needs("dead_letters")
async def test_the_text_of_the_cause_is_cut_at_a_kibibyte(harness: Harness) -> None:
    async def work(task: Any, context: Context) -> None:
        raise ValueError("ü" * 5000)

    async with harness.running(handler("Work", work), policy=retry(max_attempts=1)):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert dead_letter.metadata[wire.PF_ERROR_MESSAGE] == "ü" * 512


async def test_failures_of_one_message_hold_up_no_other(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        if task.number == 0:
            raise ValueError
        seen.note(task, context)

    policy = DeliveryPolicy(
        concurrency=2, retry=RetryPolicy(max_attempts=3, initial_backoff=1.0, max_backoff=1.0)
    )
    async with harness.running(handler("Work", work), policy=policy, shutdown_timeout=0.5):
        await harness.send(*range(30))
        await seen.until(29, within=5)


async def test_every_policy_of_the_contract_can_be_overridden_by_config(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(
        handler("Work", seen.fails),
        handlers={method("Work"): {"retry": {"max_attempts": 5, "max_backoff": "20ms"}}},
    ) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Work")].failed_runs == 5)
        await harness.quiet(0.1)
    assert seen.attempts == [1, 2, 3, 4, 5]


async def test_defaults_of_the_config_lie_beneath_the_contract(harness: Harness) -> None:
    service = harness.service(
        handler("Work", Seen(harness).ok),
        defaults={"concurrency": 3, "retry": {"max_attempts": 9}},
    )
    async with service:
        (scheduler,) = service.subscriptions
        assert scheduler.settings.concurrency == 3
        (route,) = scheduler.router.all
        assert route.spec.policy.retry.max_attempts == 3
    assert pf.WorkHandler is not None
