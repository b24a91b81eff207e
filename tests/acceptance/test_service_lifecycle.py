"""Start, readiness, shutdown: what runs is finished, what does not finish is given back."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time

import pytest
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.errors import ConfigError, ProtoflowError, RegistrationError, TopologyError
from protoflow.outcomes import RetryAfter
from protoflow.scheduling.in_flight import InFlight
from protoflow.transport import TopologyMode

from tests.acceptance.contract import pb, pf
from tests.acceptance.lab import Lab, Seen, handler, method, sync_handler, tasks

needs = pytest.mark.needs


async def test_shutdown_finishes_what_runs(lab: Lab) -> None:
    seen = Seen(lab)

    async def work(task, context):
        seen.note(task, context)
        await asyncio.sleep(0.2)
        seen.done.append(task.number)

    async with lab.running(handler("Work", work)):
        await lab.send(*range(5))
        await seen.until(5)
    assert sorted(seen.done) == list(range(5))
    again = Seen(lab)
    async with lab.running(handler("Work", again.ok)):
        await lab.quiet()
    assert again.runs == []


@needs("at_least_once")
async def test_shutdown_confirms_outputs_before_it_closes(lab: Lab) -> None:
    watcher = await lab.watch("done")
    begun = Seen(lab)

    async def work(task, context):
        begun.note(task, context)
        await asyncio.sleep(0.1)
        return pb.Done(number=task.number)

    async with lab.running(handler("Transform", work)) as service:
        await lab.send(*range(8))
        await begun.until(8)
    assert service.stats()[method("Transform")].handled == 8
    assert sorted(tasks(await watcher.exactly(8))) == list(range(8))


@needs("at_least_once")
async def test_what_does_not_finish_in_time_is_given_back_uncounted(lab: Lab) -> None:
    seen = Seen(lab)
    cancelled = []

    async def work(task, context):
        seen.note(task, context)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(context.cancelled.is_set())
            raise

    async with lab.running(handler("Work", work), shutdown_timeout=0.2) as service:
        (id,) = await lab.send(1)
        await seen.until(1)
        started = time.monotonic()
    assert time.monotonic() - started < 5 * lab.patience
    assert len(cancelled) == 1
    stats = service.stats()[method("Work")]
    assert (stats.failed_runs, stats.dead_lettered, stats.released) == (0, 0, 1)
    again = Seen(lab)
    async with lab.running(handler("Work", again.ok)):
        await again.until(1, within=20)
    assert again.runs == [(1, 1)], "cancellation must not count as an attempt"
    assert again.contexts[0].id == id
    if lab.capabilities.counts_deliveries:
        # Given back, a message may be handed out once more before the process has left.
        assert again.contexts[0].delivery.deliveries <= 4
    if lab.capabilities.dead_letters:
        assert await lab.letters(0) == []


@needs("at_least_once")
async def test_what_has_not_begun_is_given_back_and_handled_by_the_next(lab: Lab) -> None:
    seen = Seen(lab)

    async def work(task, context):
        seen.note(task, context)
        await asyncio.sleep(0.3)
        seen.done.append(task.number)

    policy = DeliveryPolicy(concurrency=2)
    async with lab.running(handler("Work", work), policy=policy) as service:
        await lab.send(*range(10))
        await seen.until(2)
        await lab.until(lambda: service.subscriptions[0].in_flight.count > 2 or seen.done)
    again = Seen(lab)
    done = set(seen.done)
    assert len(done) < 10
    async with lab.running(handler("Work", again.ok)):
        await again.until(10 - len(done), within=20)
        await lab.quiet()
    assert sorted(again.numbers) == sorted(set(range(10)) - done)
    assert set(again.attempts) == {1}


@needs("at_least_once")
async def test_what_waits_for_a_retry_is_given_back(lab: Lab) -> None:
    seen = Seen(lab)

    async def work(task, context):
        seen.note(task, context)
        raise RetryAfter(4.0)

    async with lab.running(handler("Work", work)):
        await lab.send(1)
        await seen.until(1)
        await lab.quiet(0.05)
        started = time.monotonic()
    assert time.monotonic() - started < 3 * lab.patience, "shutdown waits for no back-off"
    again = Seen(lab)
    async with lab.running(handler("Work", again.ok)):
        await again.until(1, within=20)


@needs("at_least_once")
async def test_shutdown_does_not_wait_for_a_thread_beyond_the_deadline(lab: Lab) -> None:
    import threading

    begun, end = threading.Event(), threading.Event()

    def work(task, context):
        begun.set()
        end.wait(30)

    try:
        async with lab.running(sync_handler("Work", work), shutdown_timeout=0.2):
            await lab.send(1)
            await lab.until(begun.is_set)
            started = time.monotonic()
        assert time.monotonic() - started < 10 * lab.patience
        left = [task for task in asyncio.all_tasks() if "serve" in task.get_coro().__qualname__]
        await asyncio.sleep(0.05)
        assert [task for task in left if not task.done()] == []
    finally:
        end.set()


async def test_run_ends_on_request_and_drains(lab: Lab) -> None:
    seen = Seen(lab)
    service = lab.service(handler("Work", seen.ok))
    running = asyncio.create_task(service.run())
    await lab.until(lambda: service.health().ready)
    await lab.send(1)
    await seen.until(1)
    service.request_stop()
    async with asyncio.timeout(20 * lab.patience):
        await running


async def test_cancelling_run_drains_too(lab: Lab) -> None:
    seen = Seen(lab)

    async def work(task, context):
        seen.note(task, context)
        await asyncio.sleep(0.2)
        seen.done.append(task.number)

    service = lab.service(handler("Work", work))
    running = asyncio.create_task(service.run())
    await lab.until(lambda: service.health().ready)
    await lab.send(1)
    await seen.until(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert seen.done == [1]


async def test_signals_are_left_alone_when_embedded(lab: Lab) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    async with lab.running(handler("Work", Seen(lab).ok), handle_signals=True):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    service = lab.service(handler("Audit", Seen(lab).ok), handle_signals=False)
    running = asyncio.create_task(service.run())
    await lab.until(lambda: service.health().ready)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    service.request_stop()
    await running


async def test_run_handles_signals_and_puts_the_old_handlers_back(lab: Lab) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    service = lab.service(handler("Work", Seen(lab).ok), handle_signals=True)
    running = asyncio.create_task(service.run())
    await lab.until(lambda: service.health().ready)
    assert signal.getsignal(signal.SIGTERM) != before[0]
    signal.raise_signal(signal.SIGTERM)
    async with asyncio.timeout(20 * lab.patience):
        await running
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


async def test_the_lifespan_surrounds_everything_that_is_handled(lab: Lab) -> None:
    events = []

    async def work(task, context):
        await asyncio.sleep(0.1)
        events.append("handled")

    @contextlib.asynccontextmanager
    async def lifespan(service):
        events.append("entered")
        yield
        events.append("left")

    async with lab.running(handler("Work", work), options={"lifespan": lifespan}) as service:
        await lab.send(1)
        await lab.until(lambda: service.subscriptions[0].running == 1)
    assert events == ["entered", "handled", "left"]


async def test_a_lifespan_that_fails_stops_the_start_and_leaves_nothing_open(lab: Lab) -> None:
    @contextlib.asynccontextmanager
    async def lifespan(service):
        raise LookupError("no database")
        yield

    service = lab.service(handler("Work", Seen(lab).ok), options={"lifespan": lifespan})
    with pytest.raises(LookupError, match="no database"):
        await service.start()
    assert not service.health().ready


async def test_a_service_starts_once(lab: Lab) -> None:
    async with lab.running(handler("Work", Seen(lab).ok)) as service:
        with pytest.raises(ProtoflowError, match="started already"):
            await service.start()
        with pytest.raises(RegistrationError, match="before the service starts"):
            service.register(handler("Audit", Seen(lab).ok))
    with pytest.raises(ProtoflowError, match="make a new one"):
        await service.start()


async def test_stopping_twice_does_no_harm(lab: Lab) -> None:
    async with lab.running(handler("Work", Seen(lab).ok)) as service:
        await service.stop()
        await service.stop()


async def test_a_service_without_handlers_publishes_and_is_ready(lab: Lab) -> None:
    watcher = await lab.watch("tasks")
    async with lab.running() as service:
        assert service.health().ready
        await pf.SuiteEventProducer(service).publish_task(pb.Task(number=4))
        await watcher.exactly(1)
    assert not service.health().ready


async def test_readiness_and_liveness(lab: Lab) -> None:
    service = lab.service(handler("Work", Seen(lab).ok))
    assert not service.health().ready
    async with service:
        health = service.health()
        assert (health.live, health.ready, health.problems) == (True, True, {})
    assert not service.health().ready


@needs("at_least_once")
async def test_a_dead_loop_ends_the_process_with_its_error(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing dies in silence."""
    service = lab.service(handler("Work", Seen(lab).ok), faulty=True, shutdown_timeout=1.0)
    running = asyncio.create_task(service.run())
    await lab.until(lambda: service.health().ready)

    def broken(*_args: object) -> None:
        raise KeyError("a bug of the engine")

    monkeypatch.setattr(InFlight, "came", broken)
    await lab.send(1)
    with pytest.raises(KeyError, match="a bug of the engine"):
        async with asyncio.timeout(30 * lab.patience):
            await running
    health = service.health()
    assert not health.live
    assert not health.ready
    assert "KeyError" in health.problems["service"]


async def test_a_chain_that_would_lose_dead_letters_is_refused(lab: Lab) -> None:
    from protoflow.middleware import default_chain

    service = lab.service(
        handler("Work", Seen(lab).ok), options={"middleware": default_chain().drop("poison_queue")}
    )
    with pytest.raises(ConfigError, match="would be lost"):
        await service.start()


async def test_verify_finds_what_create_made_and_names_what_is_missing(lab: Lab) -> None:
    seen = Seen(lab)
    if not lab.capabilities.at_least_once:
        pytest.skip("capability: at_least_once")
    service = lab.service(handler("Work", seen.ok), topology=TopologyMode.VERIFY)
    with pytest.raises(TopologyError, match="tasks"):
        await service.start()
    await lab.prepare(handler("Work", seen.ok))
    async with lab.running(handler("Work", seen.ok), topology=TopologyMode.VERIFY):
        await lab.send(1)
        await seen.until(1)


@needs("retains")
async def test_a_new_group_starts_at_the_earliest_unless_told_otherwise(lab: Lab) -> None:
    from protoflow.contract.spec import Start

    await lab.prepare(handler("Audit", Seen(lab).ok))
    await lab.send(1, 2)
    early, late = Seen(lab), Seen(lab)
    policy = DeliveryPolicy(start=Start.LATEST)
    async with (
        lab.running(handler("Work", early.ok)),
        lab.running(handler("Keyed", late.ok), policy=policy),
    ):
        await early.until(2)
        await lab.send(3)
        await early.until(3)
        await late.until(1)
        await lab.quiet(0.1)
    assert sorted(early.numbers) == [1, 2, 3]
    assert late.numbers == [3]


async def test_the_namespace_keeps_services_apart(lab: Lab) -> None:
    ours, theirs = Seen(lab), Seen(lab)
    other = lab.namespace + "-other"
    async with (
        lab.running(handler("Work", ours.ok)),
        lab.running(handler("Work", theirs.ok), namespace=other),
    ):
        await lab.send(1)
        await ours.until(1)
        await lab.quiet(0.1)
    assert theirs.runs == []


@needs("leases")
async def test_a_handler_longer_than_its_lease_keeps_it(lab: Lab) -> None:
    seen = Seen(lab)

    async def slow(task, context):
        seen.note(task, context)
        await asyncio.sleep(2.5)
        seen.done.append(task.number)

    async with (
        lab.running(handler("Work", slow), lease=0.8) as one,
        lab.running(handler("Work", slow), lease=0.8) as two,
    ):
        await lab.send(1)
        await lab.until(lambda: seen.done)
        await lab.settled(one, two)
        await lab.quiet()
        handled = [service.stats()[method("Work")].handled for service in (one, two)]
    assert seen.runs == [(1, 1)]
    assert sorted(handled) == [0, 1]


@needs("leases")
async def test_a_lost_lease_cancels_its_handler_and_settles_nothing(lab: Lab) -> None:
    first, second = Seen(lab), Seen(lab)
    cancelled = []

    async def stuck(task, context):
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
    async with lab.running(handler("Work", stuck), **settings) as one:
        await lab.send(1)
        await first.until(1)
        async with lab.running(handler("Work", second.ok), lease=0.8) as two:
            await lab.until(lambda: second.runs or len(first.runs) > 1, within=20)
            await lab.until(lambda: cancelled)
            one.pause(method("Work"))
            del two
    assert first.runs[0] == (1, 1)
    if second.runs:
        assert second.attempts == [1], "a lost lease is no failed run"
