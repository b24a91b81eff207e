"""What reaches a handler, in which form it may come, and what becomes of the rest."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from protoflow import wire
from protoflow.context import Context
from protoflow.contract.spec import DeliveryPolicy, UnhandledTypes
from protoflow.sync_context import SyncContext
from protoflow.testing.transports.harness import MEGABYTE

from tests.acceptance.contract import pb, pf
from tests.acceptance.harness import Harness, Seen, handler, method, sync_handler, task_metadata

needs = pytest.mark.needs


async def test_a_published_message_reaches_its_handler_as_it_was(harness: Harness) -> None:
    got = []

    async def work(task: Any, context: Context) -> None:
        got.append((task, context))

    sent = pb.Task(number=7, key="k", note="näh", blob=bytes(range(256)))
    async with harness.running(handler("Work", work)):
        id = await harness.producer.publish_task(sent, metadata={"color": "red"})
        await harness.until(lambda: got)
    ((task, context),) = got
    assert task == sent
    assert context.id == id
    assert context.key == b"k"
    assert context.topic == harness.physical("tasks")
    assert context.attempt == 1
    assert context.correlation_id == id
    assert context.metadata["color"] == "red"
    assert not [name for name in context.metadata if wire.reserved(name)]
    event = context.cloudevent
    assert (event.id, event.type, event.source) == (id, "suite.v1.Task", "/suite")
    assert (event.subject, event.data_content_type) == ("näh", "application/protobuf")
    assert event.time is not None
    assert abs((datetime.now(UTC) - event.time).total_seconds()) < 120


async def test_a_handler_that_is_a_plain_function_runs_in_a_thread(harness: Harness) -> None:
    import threading

    got = []

    def work(task: Any, context: SyncContext) -> None:
        got.append((task.number, threading.current_thread().name, context.id))

    async with harness.running(sync_handler("Work", work)):
        (id,) = await harness.send(1)
        await harness.until(lambda: got)
    assert got == [(1, "protoflow-handler", id)]


async def test_the_producer_of_a_service_publishes_what_it_consumes(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)):
        await pf.WorkProducer(harness.connection).work(pb.Task(number=3))
        await seen.until(1)
    assert seen.numbers == [3]


async def test_every_group_gets_every_message(harness: Harness) -> None:
    work, audit = Seen(harness), Seen(harness)
    async with harness.running(handler("Work", work.ok), handler("Audit", audit.ok)):
        await harness.send(*range(20))
        await work.until(20)
        await audit.until(20)
        await harness.quiet()
    assert sorted(work.numbers) == sorted(audit.numbers) == list(range(20))


async def test_two_services_of_a_group_share_the_messages(harness: Harness) -> None:
    harness.require("groups")
    one, two = Seen(harness), Seen(harness)
    async with harness.running(handler("Work", one.ok)), harness.running(handler("Work", two.ok)):
        await harness.send(*range(50))
        await harness.until(lambda: len(one.runs) + len(two.runs) >= 50)
        await harness.quiet()
    assert sorted(one.numbers + two.numbers) == list(range(50))


@needs("broadcast")
async def test_a_broadcast_reaches_every_process(harness: Harness) -> None:
    one, two = Seen(harness), Seen(harness)
    async with (
        harness.running(handler("Everywhere", one.ok)),
        harness.running(handler("Everywhere", two.ok)),
    ):
        await harness.send(*range(5))
        await one.until(5)
        await two.until(5)
    assert sorted(one.numbers) == sorted(two.numbers) == list(range(5))


async def test_a_megabyte_arrives(harness: Harness) -> None:
    got = []

    async def work(task: Any, context: Context) -> None:
        got.append(task.blob)

    limit = min(harness.capabilities.max_message_bytes or MEGABYTE, MEGABYTE)
    blob = bytes(range(256)) * ((limit - 20_000) // 256)
    async with harness.running(handler("Work", work)):
        await harness.producer.publish_task(pb.Task(blob=blob))
        await harness.until(lambda: got)
    assert got == [blob]


async def test_types_of_one_topic_reach_their_own_handlers(harness: Harness) -> None:
    got = []

    class Mixed(pf.MixedHandler):  # type: ignore[misc]  # generated while the suite runs
        async def on_task(self, message: Any, context: Context, /) -> None:
            got.append(("task", message.number))

        async def on_remark(self, message: Any, context: Context, /) -> None:
            got.append(("remark", message.text))

    async with harness.running(Mixed()):
        producer = pf.MixedProducer(harness.connection)
        await producer.on_task(pb.Task(number=1))
        await producer.on_remark(pb.Remark(text="well"))
        await harness.until(lambda: len(got) == 2)
    assert sorted(got) == [("remark", "well"), ("task", 1)]


async def test_a_message_without_type_is_of_the_only_type(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)):
        await harness.publish("tasks", pb.Task(number=9).SerializeToString())
        await seen.until(1)
    assert seen.numbers == [9]


async def test_an_alias_is_the_same_type(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)):
        payload = pb.Task(number=9).SerializeToString()
        await harness.publish("tasks", payload, metadata={wire.CE_TYPE: "suite.v1.OldTask"})
        await seen.until(1)
    assert seen.numbers == [9]


@needs("dead_letters")
async def test_a_message_without_type_among_several_goes_to_the_dead_letters(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Mixed", seen.ok)):
        sent = await harness.publish("mixed", pb.Task(number=9).SerializeToString())
        (dead_letter,) = await harness.dead_letter_messages(
            1, harness.dead_letter_topic("mixed", "mixed")
        )
    assert dead_letter.id == sent.id
    assert dead_letter.payload == sent.payload
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "decode"
    assert "names no type" in dead_letter.metadata[wire.PF_ERROR_MESSAGE]
    assert seen.runs == []


async def test_an_unknown_type_is_skipped_counted_and_warned_of_once(
    harness: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)) as service:
        for _ in range(3):
            await harness.publish("tasks", b"x", metadata={wire.CE_TYPE: "shop.v1.Other"})
        await harness.send(1)
        await seen.until(1)
        await harness.until(lambda: service.stats()[method("Work")].unhandled == 3)
        await harness.settled(service)
    assert seen.numbers == [1]
    warnings = [record for record in caplog.records if "without a handler" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].__dict__["type"] == "shop.v1.Other"


@needs("dead_letters")
async def test_an_unknown_type_is_dead_lettered_where_the_contract_says_so(
    harness: Harness,
) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Strict", seen.ok)):
        sent = await harness.publish("tasks", b"x", metadata={wire.CE_TYPE: "shop.v1.Other"})
        (dead_letter,) = await harness.dead_letter_messages(1, harness.physical("given-up"))
    assert (dead_letter.id, dead_letter.payload) == (sent.id, b"x")
    assert dead_letter.metadata[wire.CE_TYPE] == "shop.v1.Other"
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "unhandled"
    assert seen.runs == []


@needs("dead_letters")
async def test_unhandled_types_can_be_dead_lettered_by_config(harness: Harness) -> None:
    seen = Seen(harness)
    policy = DeliveryPolicy(unhandled=UnhandledTypes.DEAD_LETTER)
    async with harness.running(handler("Work", seen.ok), policy=policy):
        sent = await harness.publish("tasks", b"x", metadata={wire.CE_TYPE: "shop.v1.Other"})
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert dead_letter.id == sent.id


@needs("dead_letters")
async def test_what_cannot_be_decoded_goes_to_the_dead_letters_at_once(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)) as service:
        sent = await harness.publish(
            "tasks", b"\xff\xff\xff", key=b"k", metadata=task_metadata(a="b")
        )
        await harness.send(1)
        (dead_letter,) = await harness.dead_letter_messages(1)
        await seen.until(1)
        assert service.stats()[method("Work")].retried == 0
    assert (dead_letter.id, dead_letter.payload, dead_letter.key) == (
        sent.id,
        b"\xff\xff\xff",
        b"k",
    )
    assert dead_letter.metadata["a"] == "b"
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "decode"
    assert "suite.v1.Task" in dead_letter.metadata[wire.PF_ERROR_MESSAGE]
    assert seen.numbers == [1]


@needs("tombstones")
async def test_a_tombstone_is_skipped_and_counted(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)) as service:
        await harness.publish("tasks", None, key=b"k", metadata=task_metadata())
        await harness.send(1)
        await seen.until(1)
        await harness.until(lambda: service.stats()[method("Work")].tombstones == 1)
        await harness.settled(service)
    assert seen.numbers == [1]


async def test_an_empty_payload_is_a_message(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)):
        await harness.publish("tasks", b"", metadata=task_metadata())
        await seen.until(1)
    assert seen.numbers == [0]


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=utf-8", "text/json"]
)
async def test_the_content_type_says_how_to_decode(harness: Harness, content_type: str) -> None:
    seen = Seen(harness)
    payload = b'{"number": 5, "addedLater": {"by": "a producer"}}'
    async with harness.running(handler("Work", seen.ok)):
        metadata = task_metadata(**{wire.CONTENT_TYPE: content_type})
        await harness.publish("tasks", payload, metadata=metadata)
        await seen.until(1)
    assert seen.numbers == [5]


@needs("dead_letters")
async def test_a_content_type_that_is_not_read_is_undecodable(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)):
        await harness.publish(
            "tasks", b"<a/>", metadata=task_metadata(**{wire.CONTENT_TYPE: "text/xml"})
        )
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "decode"
    assert "text/xml" in dead_letter.metadata[wire.PF_ERROR_MESSAGE]


async def test_json_by_contract_and_a_topic_with_a_variable(harness: Harness) -> None:
    got = []

    async def report(report: Any, context: Context) -> None:
        got.append((report.id, report.text, context))

    settings = {"variables": {"region": "eu-1", "team": "blue"}}
    async with harness.running(handler("Reports", report), **settings) as service:
        await pf.ReportsProducer(service).on_report(pb.Report(id=2**60, text="fine"))
        await harness.until(lambda: got)
    id, text, context = got[0]
    assert (id, text) == (2**60, "fine")
    assert context.topic == harness.physical("reports.eu-1")
    assert context.group == harness.physical("blue-reports")
    assert context.key == str(2**60).encode()
    assert json.loads(context.message.payload or b"") == {"id": str(2**60), "text": "fine"}
    assert context.cloudevent.type == "suite.report.v1"
    assert context.cloudevent.data_schema == "https://example.com/report"


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_structured_cloud_event_is_unwrapped(harness: Harness, as_json: bool) -> None:
    got = []

    async def work(task: Any, context: Context) -> None:
        got.append((task.number, context))

    envelope = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "/elsewhere",
        "type": "suite.v1.Task",
        "subject": "s",
        "myextension": True,
    }
    if as_json:
        envelope |= {"datacontenttype": "application/json", "data": {"number": 4}}
    else:
        data = base64.b64encode(pb.Task(number=4).SerializeToString()).decode()
        envelope |= {"datacontenttype": "application/protobuf", "data_base64": data}
    async with harness.running(handler("Work", work)):
        await harness.publish(
            "tasks",
            json.dumps(envelope).encode(),
            metadata={wire.CONTENT_TYPE: "application/cloudevents+json; charset=utf-8"},
        )
        await harness.until(lambda: got)
    number, context = got[0]
    assert number == 4
    assert context.id == "e-1"
    assert context.cloudevent.subject == "s"
    assert context.metadata["ce_myextension"] == "true"


async def test_structured_mode_by_config_publishes_envelopes(harness: Harness) -> None:
    watcher = await harness.watch("tasks")
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok), structured=True) as service:
        id = await pf.SuiteEventProducer(service).publish_task(pb.Task(number=6, key="k"))
        (message,) = await watcher.take(1)
        await seen.until(1)
    envelope = json.loads(message.payload or b"")
    assert envelope["id"] == id == message.id
    assert envelope["type"] == "suite.v1.Task"
    assert pb.Task.FromString(base64.b64decode(envelope["data_base64"])).number == 6
    assert message.metadata[wire.CONTENT_TYPE] == "application/cloudevents+json"
    assert message.key == b"k"
    assert seen.numbers == [6]
    assert seen.contexts[0].id == id


@needs("dead_letters")
@pytest.mark.parametrize(
    "payload", [b"not json", b"[]", b'{"id": "1"}', b'{"data_base64": "%"}', b""]
)
async def test_a_broken_envelope_is_undecodable_and_kept_whole(
    harness: Harness, payload: bytes
) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)):
        await harness.publish(
            "tasks", payload, metadata={wire.CONTENT_TYPE: "application/cloudevents+json"}
        )
        (dead_letter,) = await harness.dead_letter_messages(1)
    assert dead_letter.payload == payload
    assert dead_letter.metadata[wire.PF_ERROR_CLASS] == "decode"


async def test_what_watermill_and_the_go_runtime_send_is_understood(harness: Harness) -> None:
    seen = Seen(harness)
    schema = {wire.GO_SCHEMA: "*suitev1.Task", wire.CONTENT_TYPE: "application/json"}
    async with harness.running(
        handler("Mixed", seen.ok), type_names={"*models.T": "suite.v1.Task"}
    ):
        await harness.publish("mixed", b'{"number": 1}', metadata=schema)
        await harness.publish(
            "mixed", b'{"number": 2}', metadata={**schema, wire.GO_SCHEMA: "*models.T"}
        )
        await harness.publish(
            "mixed", pb.Task(number=3).SerializeToString(), metadata={"name": "suite.v1.Task"}
        )
        await seen.until(3)
    assert sorted(seen.numbers) == [1, 2, 3]


async def test_the_correlation_id_that_came_along_is_known(harness: Harness) -> None:
    from protoflow.middleware.correlation_id import current_correlation_id

    got = []

    async def work(task: Any, context: Context) -> None:
        got.append((context.correlation_id, current_correlation_id()))

    async with harness.running(handler("Work", work)):
        await harness.producer.publish_task(pb.Task(), metadata={wire.CORRELATION_ID: "c-9"})
        await harness.until(lambda: got)
    assert got == [("c-9", "c-9")]
    assert current_correlation_id() is None


async def test_an_id_and_a_key_of_ones_own(harness: Harness) -> None:
    seen = Seen(harness)
    async with harness.running(handler("Work", seen.ok)):
        id = await harness.producer.publish_task(pb.Task(key="k"), id="mine-1", key=b"\x00other")
        await seen.until(1)
    assert id == "mine-1"
    assert (seen.contexts[0].id, seen.contexts[0].key) == ("mine-1", b"\x00other")


async def test_many_are_published_in_order_with_an_id_for_each(harness: Harness) -> None:
    watcher = await harness.watch("tasks")
    ids = await harness.producer.publish_task_many(pb.Task(number=n, key="k") for n in range(30))
    messages = await watcher.take(30)
    assert len(set(ids)) == 30
    assert sorted(ids) == sorted(message.id for message in messages)
