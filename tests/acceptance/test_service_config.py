"""Every setting changes something that can be seen (those of policies and bounds have cases of
their own: retry, flow, lifecycle, crash, demands)."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.errors import ConfigError, PublishError
from protoflow.events import CloudEvent
from protoflow.sync_context import SyncContext

from tests.acceptance.contract import pb, pf
from tests.acceptance.harness import Harness, Seen, handler, sync_handler

needs = pytest.mark.needs


async def test_encoding_is_that_of_the_config_where_the_contract_says_nothing(
    harness: Harness,
) -> None:
    watcher = await harness.watch("tasks")
    reports = await harness.watch("reports")
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok), encoding="json") as service:
        producer = pf.SuiteEventProducer(service)
        await producer.publish_task(pb.Task(number=5))
        await producer.publish_report(pb.Report(id=1))
        (message,) = await watcher.take(1)
        (report,) = await reports.take(1)
        await seen.until(1)
    assert json.loads(message.payload or b"") == {"number": 5}
    assert message.metadata[wire.CONTENT_TYPE] == "application/json"
    assert json.loads(report.payload or b"") == {"id": "1"}
    assert seen.numbers == [5]


async def test_source_is_that_of_the_config_where_the_contract_says_nothing(
    harness: Harness,
) -> None:
    got = []

    async def work(message: Any, context: Context) -> None:
        got.append(context.cloudevent.source)

    service = harness.service(source="/from-config")
    service.register_proto_handler("plain", "plain", pb.Remark, work)
    async with service:
        await service.publish_proto("plain", pb.Remark(text="x"))
        await harness.until(lambda: got)
    assert got == ["/from-config"]


async def test_events_are_published_and_consumed_within_the_namespace(harness: Harness) -> None:
    got = []

    async def placed(event: Any) -> None:
        got.append((event.event.type, event.event.data))

    service = harness.service()
    service.register_cloudevents_handler("events", "order.placed", placed)
    async with service:
        watcher = await harness.watch("order.placed")
        await service.publish_event(CloudEvent(type="order.placed", source="/shop", data={"id": 7}))
        await harness.until(lambda: got)
        (message,) = await watcher.take(1)
    assert message.topic == harness.physical("order.placed")
    assert message.metadata[wire.CE_TYPE] == "order.placed"


async def test_results_of_json_handlers_stay_within_the_namespace(harness: Harness) -> None:
    watcher = await harness.watch("totals")

    async def add(value: Any, context: Context) -> Any:
        return {"total": sum(value["items"])}

    service = harness.service()
    service.register_json_handler("adder", "sums", add, publish_topic="totals")
    async with service:
        await harness.publish(
            "sums", b'{"items": [1, 2]}', metadata={wire.CONTENT_TYPE: "application/json"}
        )
        (message,) = await watcher.take(1)
    assert json.loads(message.payload or b"") == {"total": 3}


async def test_publishing_to_nobody_succeeds_unless_a_subscriber_is_required(
    harness: Harness,
) -> None:
    await harness.producer.publish_task(pb.Task(number=1))
    async with harness.running(require_subscriber=True) as service:
        producer = pf.SuiteEventProducer(service)
        with pytest.raises(PublishError):
            await producer.publish_done(pb.Done(number=1))
    seen = Seen(harness)
    async with harness.running(handler("Side", seen.ok), require_subscriber=True) as service:
        await pf.SuiteEventProducer(service).publish_done(pb.Done(number=2))
        await harness.until(lambda: 2 in seen.numbers)


async def test_sync_threads_bound_the_handlers_in_threads(harness: Harness) -> None:
    running, most, done = 0, 0, 0
    lock = threading.Lock()

    def work(task: Any, context: SyncContext) -> None:
        nonlocal running, most, done
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1
            done += 1

    async with harness.running(sync_handler("Work", work), sync_threads=2):
        await harness.send(*range(10))
        await harness.until(lambda: done == 10)
    assert most == 2


async def test_with_topology_none_nothing_is_made(harness: Harness) -> None:
    await harness.prepare(handler("Work", Seen(harness).ok))
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok), topology="none"):
        await harness.send(1)
        await seen.until(1)


@needs("at_least_once", "counts_deliveries", "leases")
async def test_a_message_handed_out_too_often_runs_alone_and_is_not_given_up(
    harness: Harness,
) -> None:
    """`max_deliveries_margin`: leases that are lost again and again raise suspicion, no proof."""
    harness.require("dead_letters")
    running: set[int] = set()
    runs: list[tuple[int, int]] = []
    others: list[int] = []

    async def work(task: Any, context: Context) -> None:
        running.add(task.number)
        try:
            if task.number == 0:
                runs.append((context.delivery.deliveries, len(running)))
                await asyncio.sleep(60)
            await asyncio.sleep(0.05)
            others.append(task.number)
        finally:
            running.discard(task.number)

    async with harness.running(
        handler("Work", work),
        lease=0.5, max_hold=0.7, max_deliveries_margin=0, shutdown_timeout=1.0,
        handlers={"suite.v1.Work.Work": {"retry": {"max_attempts": 1}}},
    ):  # fmt: skip
        await harness.send(0)
        for number in range(1, 300):
            if len(runs) >= 4:
                break
            await harness.send(number)
            await asyncio.sleep(0.1)
        await harness.dead_letter_messages(0)
    assert len(runs) >= 4
    # Not every broker counts a hand-out that ended with `max_hold`.
    assert {beside for deliveries, beside in runs if deliveries > 2} <= {1}, runs
    assert others


async def test_an_unknown_transport_is_refused_with_those_that_are_known(harness: Harness) -> None:
    from protoflow.service import Service

    with pytest.raises(ConfigError, match=r"carrier-pigeon://; known are .*memory"):
        Service(harness.config(transport="carrier-pigeon://loft"))
