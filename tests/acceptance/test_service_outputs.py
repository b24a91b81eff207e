"""A delivery is acknowledged only when its outputs are confirmed, and they are repeatable."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.errors import CapabilityError, PublishRefusedError
from protoflow.message import Message
from protoflow.output import Output
from protoflow.sync_context import SyncContext
from protoflow.testing.transports.harness import MEGABYTE

from tests.acceptance.contract import pb, pf
from tests.acceptance.faulty import faulty_of, nothing_fails, topic_fails
from tests.acceptance.harness import (
    Harness,
    Seen,
    handler,
    method,
    sync_handler,
    task_metadata,
    tasks,
)

needs = pytest.mark.needs

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def transform(task: Any, context: Context) -> Any:
    return pb.Done(number=task.number * 10, key=task.key)


async def test_what_a_handler_returns_is_published(harness: Harness) -> None:
    watcher = await harness.watch("done")
    async with harness.running(handler("Transform", transform)):
        await harness.send(1, key="k")
        (message,) = await watcher.exactly(1)
    assert pb.Done.FromString(message.payload) == pb.Done(number=10, key="k")
    assert message.key == b"k"
    assert message.topic == harness.physical("done")
    assert message.metadata[wire.CE_TYPE] == "suite.v1.Done"


async def test_a_handler_in_a_thread_publishes_too(harness: Harness) -> None:
    watcher = await harness.watch("done")
    side = await harness.watch("tasks.side")

    def work(task: Any, context: SyncContext) -> Any:
        producer = pf.SuiteEventProducerSync(context)
        ids.append(producer.publish_done(pb.Done(number=2)))
        return pb.Done(number=1)

    ids: list[str] = []
    async with harness.running(sync_handler("Transform", work)):
        await harness.send(1)
        messages = await watcher.exactly(2)
    assert tasks(messages) == [2, 1]
    assert messages[0].id == ids[0]
    assert side.messages == []


async def test_returning_nothing_publishes_nothing(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def work(task: Any, context: Context) -> Any:
        return None

    async with harness.running(handler("Transform", work)) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Transform")].handled == 1)
        await watcher.exactly(0)


async def test_an_output_may_say_key_metadata_topic_and_id(harness: Harness) -> None:
    watcher = await harness.watch("elsewhere")

    async def work(task: Any, context: Context) -> Any:
        return Output(
            pb.Done(number=1, key="contract"),
            key="mine", metadata={"color": "red"}, topic="elsewhere", id="my-id",
        )  # fmt: skip

    async with harness.running(handler("Transform", work)):
        await harness.send(1)
        (message,) = await watcher.exactly(1)
    assert (message.id, message.key, message.metadata["color"]) == ("my-id", b"mine", "red")


async def test_an_output_inherits_correlation_causation_and_trace_and_nothing_else(
    harness: Harness,
) -> None:
    watcher = await harness.watch("done")
    incoming = task_metadata(
        correlation_id="c-1",
        causation_id="older",
        traceparent=TRACE,
        tracestate="a=b",
        baggage="c=d",
        color="red",
        pf_attempt="1",
        pf_group="elsewhere",
        protoflow_delay="9",
        ce_subject="s",
        ce_myextension="x",
    )
    async with harness.running(handler("Transform", transform)):
        sent = await harness.publish(
            "tasks", pb.Task(number=1).SerializeToString(), id="m-1", metadata=incoming
        )
        (message,) = await watcher.exactly(1)
    got = dict(message.metadata)
    assert got.pop(wire.CORRELATION_ID) == "c-1"
    assert got.pop(wire.CAUSATION_ID) == sent.id
    assert got.pop(wire.TRACEPARENT).split("-")[1] == TRACE.split("-")[1]
    assert got.pop("tracestate", "a=b") == "a=b"
    assert got.pop("baggage") == "c=d"
    own = {name for name in got if not name.startswith("ce_") and name != wire.CONTENT_TYPE}
    assert own == set()
    ours = {"ce_type", "ce_source", "ce_time", "ce_specversion"}
    assert {name for name in got if name.startswith("ce_")} <= ours


async def test_the_metadata_of_an_input_may_be_passed_on_and_the_output_stays_what_it_is(
    harness: Harness,
) -> None:
    watcher = await harness.watch("done")

    async def work(task: Any, context: Context) -> Any:
        return Output(pb.Done(number=task.number * 10), metadata=context.metadata)

    incoming = task_metadata(
        causation_id="older", tenant="acme", ce_subject="s", ce_region="eu",
        pf_due="99999999999", pf_group="elsewhere", message_id="theirs",
    )  # fmt: skip
    async with harness.running(handler("Transform", work)):
        sent = await harness.publish(
            "tasks", pb.Task(number=1).SerializeToString(), id="m-1", metadata=incoming
        )
        (message,) = await watcher.exactly(1)
    assert pb.Done.FromString(message.payload).number == 10
    metadata = message.metadata
    assert metadata[wire.CE_TYPE] == "suite.v1.Done"
    assert metadata["tenant"] == "acme"
    assert metadata["ce_region"] == "eu"
    assert metadata[wire.CAUSATION_ID] == sent.id
    assert not {"ce_subject", "pf_due", "pf_group", "message_id"} & metadata.keys()
    assert message.id != "m-1"


async def test_without_correlation_id_the_inputs_id_founds_it(harness: Harness) -> None:
    watcher = await harness.watch("done")
    async with harness.running(handler("Transform", transform)):
        (id,) = await harness.send(1)
        (message,) = await watcher.exactly(1)
    assert message.metadata[wire.CORRELATION_ID] == id
    assert message.metadata[wire.CAUSATION_ID] == id


@needs("at_least_once")
async def test_outputs_of_a_failed_run_are_dropped_and_a_redone_run_repeats_the_ids(
    harness: Harness,
) -> None:
    watcher = await harness.watch("done")
    ids = []

    async def work(task: Any, context: Context) -> Any:
        producer = pf.SuiteEventProducer(context)
        ids.append([await producer.publish_done(pb.Done(number=n)) for n in (1, 2)])
        if context.attempt < 3:
            raise ValueError("after publishing")
        return pb.Done(number=3)

    async with harness.running(handler("Transform", work)):
        await harness.send(1)
        messages = await watcher.exactly(3)
    assert tasks(messages) == [1, 2, 3]
    assert ids[0] == ids[1] == ids[2] == [message.id for message in messages[:2]]
    assert len({message.id for message in messages}) == 3


@needs("at_least_once", "durable")
async def test_a_run_redone_by_another_process_repeats_the_ids(harness: Harness) -> None:
    ids = []

    async def work(task: Any, context: Context) -> None:
        ids.append(await pf.SuiteEventProducer(context).publish_done(pb.Done(number=1)))
        raise RuntimeError("never comes through")

    policy = DeliveryPolicy(retry=RetryPolicy(max_attempts=9, initial_backoff=3.0, max_backoff=3.0))
    for _ in range(2):
        before = len(ids)
        async with harness.running(handler("Work", work), policy=policy):
            if not ids:
                await harness.send(1)
            await harness.until(partial(lambda count: len(ids) > count, before))
    assert len(set(ids)) == 1


async def test_ids_differ_by_handler_and_by_input(harness: Harness) -> None:
    watcher = await harness.watch("done")
    async with harness.running(handler("Transform", transform)):
        await harness.send(1, 2)
        messages = await watcher.exactly(2)
    assert len({message.id for message in messages}) == 2


async def test_what_is_published_through_the_service_goes_out_at_once(harness: Harness) -> None:
    harness.require("at_least_once")
    watcher = await harness.watch("done")
    policy = DeliveryPolicy(retry=RetryPolicy(max_attempts=2))

    async def work(task: Any, context: Context) -> None:
        await pf.SuiteEventProducer(service).publish_done(pb.Done(number=context.attempt))
        raise ValueError

    service = harness.service(handler("Work", work), policy=policy)
    async with service:
        await harness.send(1)
        messages = await watcher.exactly(2)
    assert tasks(messages) == [1, 2]


async def test_raw_messages_can_be_published_through_the_context(harness: Harness) -> None:
    watcher = await harness.watch("raw")

    async def work(task: Any, context: Context) -> None:
        await context.publish(Message(id="raw-1", topic=harness.physical("raw"), payload=b"bytes"))

    async with harness.running(handler("Work", work)):
        await harness.send(1)
        (message,) = await watcher.exactly(1)
    assert (message.id, message.payload) == ("raw-1", b"bytes")


@needs("takes_any_topic")
async def test_publishing_to_a_topic_that_nobody_has_made_succeeds(harness: Harness) -> None:
    async def work(task: Any, context: Context) -> Any:
        await pf.SuiteEventProducer(context).publish_report(pb.Report(id=1))
        return Output(pb.Done(number=1), topic="made.by.nobody")

    async with harness.running(handler("Transform", work)) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Transform")].handled == 1)
        assert service.stats()[method("Transform")].failed_runs == 0
    if harness.capabilities.retains:
        seen = Seen(harness)
        service = harness.service()
        service.register_proto_handler("reader", "made.by.nobody", pb.Done, seen.ok)
        async with service:
            await seen.until(1)


@needs("at_least_once")
async def test_outputs_that_are_not_taken_are_published_again_and_the_handler_is_not_run_again(
    harness: Harness,
) -> None:
    watcher = await harness.watch("done")
    seen = Seen(harness)

    async def work(task: Any, context: Context) -> Any:
        seen.note(task, context)
        return pb.Done(number=1)

    policy = DeliveryPolicy(retry=RetryPolicy(max_attempts=2))
    service = harness.service(handler("Transform", work), policy=policy, faulty=True)
    async with service:
        faulty_of(service).rule = topic_fails(harness.physical("done"))
        await harness.send(1)
        await harness.until(lambda: len(faulty_of(service).refused) >= 4, what="it is repeated")
        assert watcher.messages == []
        assert service.stats()[method("Transform")].handled == 0
        faulty_of(service).rule = nothing_fails
        await watcher.exactly(1)
        await harness.until(lambda: service.stats()[method("Transform")].handled == 1)
    assert seen.attempts == [1], "a broker that does not confirm is no failed run"
    assert len({message.id for message in faulty_of(service).refused}) == 1, "the same message"


@needs("at_least_once")
async def test_a_shutdown_gives_back_what_the_broker_did_not_take(harness: Harness) -> None:
    watcher = await harness.watch("done")
    first = harness.service(handler("Transform", transform), faulty=True, shutdown_timeout=2.0)
    async with first:
        faulty_of(first).rule = topic_fails(harness.physical("done"))
        await harness.send(1)
        await harness.until(lambda: len(faulty_of(first).refused) >= 2)
    assert watcher.messages == []
    assert first.stats()[method("Transform")].dead_lettered == 0
    if harness.capabilities.durable:
        async with harness.service(handler("Transform", transform)):
            await watcher.exactly(1)


@needs("at_least_once", "dead_letters")
async def test_an_output_refused_for_good_fails_its_message_at_once(harness: Harness) -> None:
    if harness.always_atomic:
        # One refusal stands for no room and for too large, so it is tried again.
        pytest.skip("capability: atomic")
    service = harness.service(handler("Transform", transform), faulty=True)
    error = PublishRefusedError("not authorised")
    async with service:
        faulty_of(service).rule = topic_fails(harness.physical("done"), error)
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("tasks", "suite.v1.Transform")
        )
        assert service.stats()[method("Transform")].retried == 0
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "output"
    assert dead_letter.metadata[wire.PF_ATTEMPT] == "1"


@needs("at_least_once")
async def test_nothing_is_acknowledged_before_its_outputs_are_confirmed(harness: Harness) -> None:
    """The confirmation of an output is held back; the service stops; the input comes again."""
    runs = Seen(harness)

    async def work(task: Any, context: Context) -> Any:
        runs.note(task, context)
        return pb.Done(number=1)

    service = harness.service(handler("Transform", work), faulty=True, shutdown_timeout=0.2)
    async with service:
        faulty_of(service).rule = topic_fails(harness.physical("done"))
        await harness.send(1)
        await runs.until(1)
    watcher = await harness.watch("done")
    async with harness.running(handler("Transform", work)):
        await watcher.exactly(1)


async def test_outputs_of_one_key_keep_the_order_of_their_calls(harness: Harness) -> None:
    watcher = await harness.watch("done")

    async def work(task: Any, context: Context) -> Any:
        producer = pf.SuiteEventProducer(context)
        for number in range(20):
            await producer.publish_done(pb.Done(number=number, key="k"))
        return pb.Done(number=20, key="k")

    async with harness.running(handler("Transform", work)):
        await harness.send(1)
        messages = await watcher.exactly(21)
    if harness.capabilities.per_key:
        assert tasks(messages) == list(range(21))
    else:
        assert sorted(tasks(messages)) == list(range(21))


@needs("dead_letters", "at_least_once")
async def test_an_output_that_is_too_large_fails_its_message_at_once(harness: Harness) -> None:
    limit = harness.capabilities.max_message_bytes
    if limit is None or limit > 16 * MEGABYTE:
        pytest.skip("capability: max_message_bytes")

    async def work(task: Any, context: Context) -> Any:
        return pb.Done(key="x" * (limit + 1))

    async with harness.running(handler("Transform", work)) as service:
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("tasks", "suite.v1.Transform")
        )
        assert service.stats()[method("Transform")].retried == 0
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "output"


@needs("dead_letters", "at_least_once")
async def test_an_output_of_a_wrong_type_fails_its_run(harness: Harness) -> None:
    async def work(task: Any, context: Context) -> Any:
        return pb.Task()

    async with harness.running(handler("Transform", work)):
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("tasks", "suite.v1.Transform")
        )
    assert dead_letter.metadata[wire.PF_ERROR_TYPE] == "TypeError"


@needs("delayed_publish")
async def test_a_delayed_output_comes_later_and_not_early(harness: Harness) -> None:
    watcher = await harness.watch("done")
    sent_at = []

    async def work(task: Any, context: Context) -> Any:
        sent_at.append(asyncio.get_running_loop().time())
        return Output(pb.Done(number=1), delay=timedelta(seconds=1))

    async with harness.running(handler("Transform", work)) as service:
        await harness.send(1)
        await harness.until(lambda: service.stats()[method("Transform")].handled == 1)
        await harness.until(lambda: watcher.messages)
        came = asyncio.get_running_loop().time()
    assert came - sent_at[0] >= 0.98


@needs("delayed_publish")
async def test_a_producer_may_delay(harness: Harness) -> None:
    seen = Seen(harness)
    loop = asyncio.get_running_loop()
    async with harness.running(handler("Work", seen.ok)):
        started = loop.time()
        await harness.producer.publish_task(pb.Task(number=2), delay=timedelta(seconds=1))
        await harness.producer.publish_task(pb.Task(number=1))
        await seen.until(2)
        assert loop.time() - started >= 0.98
    assert seen.numbers == [1, 2]


async def test_a_delay_that_cannot_be_kept_is_refused_before_anything_is_sent(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    messages = [Output(pb.Task(number=1)), Output(pb.Task(), delay=timedelta(days=30))]
    longest = harness.capabilities.max_delay
    kept = harness.capabilities.delayed_publish and (longest is None or longest >= 30 * 86400)
    async with harness.running(handler("Work", seen.ok)):
        if kept:
            await harness.producer.publish_task_many(messages)
            await seen.until(1)
        else:
            with pytest.raises(CapabilityError, match=r"no delayed publish|allows"):
                await harness.producer.publish_task_many(messages)
        await harness.quiet()
    assert seen.numbers == ([1] if kept else [])
