"""Start, readiness, shutdown: what runs is finished, what does not finish is given back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.errors import ConfigError, ProtoflowError, RegistrationError, TopologyError
from protoflow.outcomes import RetryAfter
from protoflow.scheduling.in_flight import InFlight
from protoflow.service import Service
from protoflow.sync_context import SyncContext
from protoflow.transport import TopologyMode

from tests.acceptance.contract import pb, pf
from tests.acceptance.harness import Harness, Seen, handler, method, sync_handler, tasks

needs = pytest.mark.needs


async def test_shutdown_finishes_what_runs(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        await asyncio.sleep(0.2)
        seen.done.append(task.number)

    async with harness.running(handler("Work", work)):
        await harness.send(*range(5))
        await seen.until(5)
    assert sorted(seen.done) == list(range(5))
    again = Seen(harness)
    async with harness.running(handler("Work", again.ok)):
        await harness.quiet()
    assert again.runs == []


@needs("at_least_once")
async def test_shutdown_confirms_outputs_before_it_closes(harness: Harness) -> None:
    watcher = await harness.watch("done")
    begun = Seen(harness)

    async def work(task: Any, context: Context) -> Any:
        begun.note(task, context)
        await asyncio.sleep(0.1)
        return pb.Done(number=task.number)

    async with harness.running(handler("Transform", work)) as service:
        await harness.send(*range(8))
        await begun.until(8)
    assert service.stats()[method("Transform")].handled == 8
    assert sorted(tasks(await watcher.exactly(8))) == list(range(8))


@needs("at_least_once")
async def test_what_does_not_finish_in_time_is_given_back_uncounted(harness: Harness) -> None:
    seen = Seen(harness)
    cancelled = []

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(context.cancelled.is_set())
            raise

    async with harness.running(handler("Work", work), shutdown_timeout=0.2) as service:
        (id,) = await harness.send(1)
        await seen.until(1)
        started = time.monotonic()
    assert time.monotonic() - started < 5 * harness.patience
    assert len(cancelled) == 1
    stats = service.stats()[method("Work")]
    assert (stats.failed_runs, stats.dead_lettered, stats.released) == (0, 0, 1)
    again = Seen(harness)
    async with harness.running(handler("Work", again.ok)):
        await again.until(1, within=20)
    assert again.runs == [(1, 1)], "cancellation must not count as an attempt"
    assert again.contexts[0].id == id
    if harness.capabilities.counts_deliveries:
        # Given back, a message may be handed out once more before the process has left.
        assert again.contexts[0].delivery.deliveries <= 4
    if harness.capabilities.dead_letters:
        assert await harness.dead_letter_messages(0) == []


@needs("at_least_once")
async def test_a_drained_subscription_leaves_its_messages_to_other_processes(
    harness: Harness,
) -> None:
    first, second = Seen(harness), Seen(harness)
    audit = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        first.note(task, context)
        await asyncio.sleep(0.2)
        first.done.append(task.number)

    handlers = (handler("Work", work), handler("Audit", audit.ok))
    async with harness.running(*handlers, policy=DeliveryPolicy(concurrency=1)) as service:
        await harness.send(*range(5))
        await first.until(1)
        service.drain(method("Work"))
        drained = next(one for one in service.subscriptions if one.state == "draining")
        await harness.until(lambda: drained.state == "drained", within=20)
        assert first.numbers == first.done, "what runs is finished"
        assert not service.health().ready
        left = set(range(5)) - set(first.done)
        async with harness.running(handler("Work", second.ok)):
            await second.until(len(left), within=20)
            # Other subscriptions of the process go on.
            await harness.send(5)
            await second.until(len(left) + 1, within=20)
            await audit.until(6, within=20)
    assert set(second.numbers) == left | {5}
    assert first.numbers == first.done


@needs("at_least_once")
async def test_what_has_not_begun_is_given_back_and_handled_by_the_next(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        await asyncio.sleep(0.3)
        seen.done.append(task.number)

    policy = DeliveryPolicy(concurrency=2)
    async with harness.running(handler("Work", work), policy=policy) as service:
        await harness.send(*range(10))
        await seen.until(2)
        await harness.until(lambda: service.subscriptions[0].in_flight.count > 2 or seen.done)
    again = Seen(harness)
    done = set(seen.done)
    assert len(done) < 10
    async with harness.running(handler("Work", again.ok)):
        await again.until(10 - len(done), within=20)
        await harness.quiet()
    assert sorted(again.numbers) == sorted(set(range(10)) - done)
    assert set(again.attempts) == {1}


@needs("at_least_once")
async def test_what_waits_for_a_retry_is_given_back(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        raise RetryAfter(4.0)

    async with harness.running(handler("Work", work)):
        await harness.send(1)
        await seen.until(1)
        await harness.quiet(0.05)
        started = time.monotonic()
    assert time.monotonic() - started < 3 * harness.patience, "shutdown waits for no back-off"
    again = Seen(harness)
    async with harness.running(handler("Work", again.ok)):
        await again.until(1, within=20)


@pytest.mark.real_time
@needs("at_least_once")
async def test_shutdown_does_not_wait_for_a_thread_beyond_the_deadline(harness: Harness) -> None:
    import threading

    begun, end = threading.Event(), threading.Event()

    def work(task: Any, context: SyncContext) -> None:
        begun.set()
        end.wait(30)

    try:
        async with harness.running(sync_handler("Work", work), shutdown_timeout=0.2):
            await harness.send(1)
            await harness.until(begun.is_set)
            started = time.monotonic()
        assert time.monotonic() - started < 10 * harness.patience
        left = [task for task in asyncio.all_tasks() if "serve" in str(task.get_coro())]
        await asyncio.sleep(0.05)
        assert [task for task in left if not task.done()] == []
    finally:
        end.set()


async def test_run_ends_on_request_and_drains(harness: Harness) -> None:
    seen = Seen(harness)
    service = harness.service(handler("Work", seen.ok))
    running = asyncio.create_task(service.run())
    await harness.until(lambda: service.health().ready)
    await harness.send(1)
    await seen.until(1)
    service.request_stop()
    async with asyncio.timeout(20 * harness.patience):
        await running


async def test_cancelling_run_drains_too(harness: Harness) -> None:
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> None:
        seen.note(task, context)
        await asyncio.sleep(0.2)
        seen.done.append(task.number)

    service = harness.service(handler("Work", work))
    running = asyncio.create_task(service.run())
    await harness.until(lambda: service.health().ready)
    await harness.send(1)
    await seen.until(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen.done == [1]


async def test_signals_are_left_alone_when_embedded(harness: Harness) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with harness.running(handler("Work", Seen(harness).ok), handle_signals=True):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    service = harness.service(handler("Audit", Seen(harness).ok), handle_signals=False)
    running = asyncio.create_task(service.run())
    await harness.until(lambda: service.health().ready)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    service.request_stop()
    await running


async def test_run_handles_signals_and_puts_the_old_handlers_back(harness: Harness) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    service = harness.service(handler("Work", Seen(harness).ok), handle_signals=True)
    running = asyncio.create_task(service.run())
    await harness.until(lambda: service.health().ready)
    assert signal.getsignal(signal.SIGTERM) != before[0]
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(20 * harness.patience):
        await running
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_the_lifespan_surrounds_everything_that_is_handled(harness: Harness) -> None:
    events = []

    async def work(task: Any, context: Context) -> None:
        await asyncio.sleep(0.1)
        events.append("handled")

    @contextlib.asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[Any]:
        events.append("entered")
        yield
        events.append("left")

    async with harness.running(handler("Work", work), options={"lifespan": lifespan}) as service:
        await harness.send(1)
        await harness.until(lambda: service.subscriptions[0].running == 1)
    assert events == ["entered", "handled", "left"]


async def test_a_lifespan_that_fails_stops_the_start_and_leaves_nothing_open(
    harness: Harness,
) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(service: Service) -> AsyncIterator[Any]:
        raise LookupError("no database")
        yield

    service = harness.service(handler("Work", Seen(harness).ok), options={"lifespan": lifespan})
    with pytest.raises(LookupError, match="no database"):
        await service.start()
    assert not service.health().ready


async def test_a_service_starts_once(harness: Harness) -> None:
    async with harness.running(handler("Work", Seen(harness).ok)) as service:
        with pytest.raises(ProtoflowError, match="started already"):
            await service.start()
        with pytest.raises(RegistrationError, match="before the service starts"):
            service.register(handler("Audit", Seen(harness).ok))
    with pytest.raises(ProtoflowError, match="create a new service"):
        await service.start()


async def test_stopping_twice_does_no_harm(harness: Harness) -> None:
    async with harness.running(handler("Work", Seen(harness).ok)) as service:
        await service.stop()
        await service.stop()


async def test_a_service_without_handlers_publishes_and_is_ready(harness: Harness) -> None:
    watcher = await harness.watch("tasks")
    async with harness.running() as service:
        assert service.health().ready
        await pf.SuiteEventProducer(service).publish_task(pb.Task(number=4))
        await watcher.exactly(1)
    assert not service.health().ready


async def test_readiness_and_liveness(harness: Harness) -> None:
    service = harness.service(handler("Work", Seen(harness).ok))
    assert not service.health().ready
    async with service:
        health = service.health()
        assert (health.live, health.ready, health.problems) == (True, True, {})
    assert not service.health().ready


@needs("at_least_once")
async def test_a_dead_loop_ends_the_process_with_its_error(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing dies in silence."""
    service = harness.service(handler("Work", Seen(harness).ok), faulty=True, shutdown_timeout=1.0)
    running = asyncio.create_task(service.run())
    await harness.until(lambda: service.health().ready)

    def broken(*_args: object) -> None:
        raise KeyError("a bug of the engine")

    monkeypatch.setattr(InFlight, "came", broken)
    await harness.send(1)
    with pytest.raises(KeyError, match="a bug of the engine"):
        async with asyncio.timeout(30 * harness.patience):
            await running
    health = service.health()
    assert not health.live
    assert not health.ready
    assert "KeyError" in health.problems["service"]


async def test_a_chain_that_would_lose_dead_letters_is_refused(harness: Harness) -> None:
    from protoflow.middleware import default_chain

    service = harness.service(
        handler("Work", Seen(harness).ok),
        options={"middleware": default_chain().drop("poison_queue")},
    )
    with pytest.raises(ConfigError, match="would be lost"):
        await service.start()


async def test_verify_finds_what_create_made_and_names_what_is_missing(harness: Harness) -> None:
    seen = Seen(harness)
    harness.require("at_least_once", "dead_letters")  # there is something to create
    service = harness.service(handler("Work", seen.ok), topology=TopologyMode.VERIFY)
    with pytest.raises(TopologyError, match="tasks"):
        await service.start()
    await harness.prepare(handler("Work", seen.ok))
    async with harness.running(handler("Work", seen.ok), topology=TopologyMode.VERIFY):
        await harness.send(1)
        await seen.until(1)


@needs("retains")
async def test_a_new_group_starts_at_the_earliest_unless_reported_otherwise(
    harness: Harness,
) -> None:
    from protoflow.contract.spec import Start

    await harness.prepare(handler("Audit", Seen(harness).ok))
    await harness.send(1, 2)
    early, late = Seen(harness), Seen(harness)
    policy = DeliveryPolicy(start=Start.LATEST)
    async with (
        harness.running(handler("Work", early.ok)),
        harness.running(handler("Keyed", late.ok), policy=policy),
    ):
        await early.until(2)
        await harness.send(3)
        await early.until(3)
        await late.until(1)
        await harness.quiet(0.1)
    assert sorted(early.numbers) == [1, 2, 3]
    assert late.numbers == [3]


async def test_the_namespace_keeps_services_apart(harness: Harness) -> None:
    ours, theirs = Seen(harness), Seen(harness)
    other = harness.namespace + "-other"
    async with (
        harness.running(handler("Work", ours.ok)),
        harness.running(handler("Work", theirs.ok), namespace=other),
    ):
        await harness.send(1)
        await ours.until(1)
        await harness.quiet(0.1)
    assert theirs.runs == []


@needs("leases")
async def test_a_handler_longer_than_its_lease_keeps_it(harness: Harness) -> None:
    seen = Seen(harness)

    async def slow(task: Any, context: Context) -> None:
        seen.note(task, context)
        await asyncio.sleep(2.5)
        seen.done.append(task.number)

    async with (
        harness.running(handler("Work", slow), lease=0.8) as one,
        harness.running(handler("Work", slow), lease=0.8) as two,
    ):
        await harness.send(1)
        await harness.until(lambda: seen.done)
        await harness.settled(one, two)
        await harness.quiet()
        handled = [service.stats()[method("Work")].handled for service in (one, two)]
    assert seen.runs == [(1, 1)]
    assert sorted(handled) == [0, 1]


@needs("leases")
async def test_a_lost_lease_cancels_its_handler_and_settles_nothing(harness: Harness) -> None:
    first, second = Seen(harness), Seen(harness)
    cancelled = []

    async def stuck(task: Any, context: Context) -> None:
        first.note(task, context)
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled.append(task.number)
            raise

    settings = {
        "lease": 0.8,
        "max_hold": 1.2,
        "policy": DeliveryPolicy(retry=RetryPolicy(max_backoff=1)),
    }
    async with harness.running(handler("Work", stuck), **settings) as one:
        await harness.send(1)
        await first.until(1)
        async with harness.running(handler("Work", second.ok), lease=0.8) as two:
            await harness.until(lambda: second.runs or len(first.runs) > 1, within=20)
            await harness.until(lambda: cancelled)
            one.pause(method("Work"))
            del two
    assert first.runs[0] == (1, 1)
    if second.runs:
        assert second.attempts == [1], "a lost lease is no failed run"
