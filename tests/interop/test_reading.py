"""They publish, we handle: whatever others write, on every broker."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import aio_pika
import pytest
from google.protobuf import json_format
from protoflow import Service, wire

from tests.acceptance.contract import pb
from tests.interop.conftest import Party
from tests.interop.peers import Posted

STRUCTURED = "application/cloudevents+json"


def task(number: int) -> bytes:
    message: bytes = pb.Task(number=number, key="k").SerializeToString()
    return message


def remark(text: str) -> bytes:
    message: bytes = pb.Remark(text=text).SerializeToString()
    return message


def protojson(message: Any) -> bytes:
    """As Go's protojson with EmitUnpopulated writes it."""
    return json_format.MessageToJson(
        message, always_print_fields_with_no_presence=True, indent=None
    ).encode()


def attributes(id: str, type: str = "suite.v1.Task") -> dict[str, str]:
    return {"specversion": "1.0", "id": id, "source": "/them", "type": type}


def envelope(id: str, **more: Any) -> bytes:
    return json.dumps({**attributes(id), **more}).encode()


@dataclass(frozen=True, kw_only=True)
class Case:
    """A foreign message, and what the handler is to get; no id: any."""

    topic: str
    posted: Posted
    value: int | str
    id: str | None = None
    metadata: tuple[tuple[str, str], ...] = ()


GO_EVENT = {
    **attributes("go-2"),
    "time": "2026-01-02T03:04:05.123456789Z",
    "data": {"number": 9},
    "pf_attempt": 1,
    "pf_correlation_id": "c-9",
}

CASES = {
    "binary protobuf": Case(
        topic="tasks",
        posted=Posted(
            body=task(1), attributes=attributes("e-1"), content_type="application/protobuf"
        ),
        value=1,
        id="e-1",
    ),
    "binary protojson, an unknown field, a charset": Case(
        topic="tasks",
        posted=Posted(
            body=b'{"number": 2, "key": "k", "newField": []}',
            attributes={**attributes("e-2"), "comexampleext": "x y"},
            content_type="application/json; charset=utf-8",
        ),
        value=2,
        id="e-2",
        metadata=(("ce_comexampleext", "x y"),),
    ),
    "structured": Case(
        topic="tasks",
        posted=Posted(
            body=envelope("e-3", data={"number": 3}, time="2026-01-02T03:04:05Z", ext=True),
            content_type=STRUCTURED,
        ),
        value=3,
        id="e-3",
        metadata=(("ce_time", "2026-01-02T03:04:05Z"), ("ce_ext", "true")),
    ),
    "structured, base64, in other letters": Case(
        topic="tasks",
        posted=Posted(
            body=envelope(
                "e-4",
                data_base64=base64.b64encode(task(4)).decode(),
                datacontenttype="application/protobuf",
                subject=None,
            ),
            content_type="Application/CloudEvents+JSON; charset=UTF-8",
        ),
        value=4,
        id="e-4",
    ),
    "nothing but protobuf": Case(topic="tasks", posted=Posted(body=task(5)), value=5),
    "nothing but JSON": Case(topic="tasks", posted=Posted(body=b'{"number": 6}'), value=6),
    "a header that is called name": Case(
        topic="tasks", posted=Posted(body=task(7), headers={"name": "Bob"}), value=7
    ),
    "the Go runtime's PublishProto": Case(
        topic="mixed",
        posted=Posted(
            body=protojson(pb.Task(number=8)),
            headers={
                wire.WATERMILL_ID: "go-1",
                wire.GO_SCHEMA: "*suitev1.Task",
                wire.CORRELATION_ID: "c-8",
            },
        ),
        value=8,
        id="go-1",
        metadata=((wire.CORRELATION_ID, "c-8"),),
    ),
    "the Go runtime's PublishEvent": Case(
        topic="mixed",
        posted=Posted(
            body=json.dumps(GO_EVENT).encode(),
            headers={
                wire.WATERMILL_ID: "go-2",
                **{f"ce_{name}": value for name, value in attributes("go-2").items()},
                "ce_datacontenttype": "application/json",
                "pf_attempt": "1",
                "pf_correlation_id": "c-9",
            },
        ),
        value=9,
        id="go-2",
        metadata=((wire.CORRELATION_ID, "c-9"), ("pf_attempt", "1")),
    ),
    "the Go runtime's output with its input's metadata": Case(
        topic="mixed",
        posted=Posted(
            body=protojson(pb.Remark(text="ten")),
            headers={
                **{f"ce_{name}": value for name, value in attributes("input").items()},
                "content-type": "application/json",
                wire.WATERMILL_ID: "go-3",
                wire.GO_SCHEMA: "*suitev1.Remark",
            },
        ),
        value="ten",
        id="go-3",
    ),
    "Watermill's ProtoMarshaler": Case(
        topic="mixed",
        posted=Posted(
            body=remark("eleven"),
            headers={wire.WATERMILL_ID: "w-1", wire.WATERMILL_NAME: "suitev1.Remark"},
        ),
        value="eleven",
        id="w-1",
    ),
    "Watermill's ProtoMarshaler with full names": Case(
        topic="mixed",
        posted=Posted(
            body=remark("twelve"),
            headers={wire.WATERMILL_ID: "w-2", wire.WATERMILL_NAME: "suite.v1.Remark"},
        ),
        value="twelve",
        id="w-2",
    ),
}


def value_of(message: Any) -> int | str:
    value: int | str = message.text if isinstance(message, pb.Remark) else message.number
    return value


async def test_what_others_send_is_handled(party: Party) -> None:
    async with party.running("Work", "Mixed") as service:
        for case in CASES.values():
            await party.peer.publish(party.topic(case.topic), case.posted)
        got = {value_of(it.message): it.context for it in await party.received(len(CASES))}
        for name, case in CASES.items():
            context = got.get(case.value)
            assert context is not None, name
            if case.id is not None:
                assert context.id == case.id, name
            for key, text in case.metadata:
                assert context.message.metadata.get(key) == text, (name, key)
        assert len(got) == len(CASES)
        assert all(not stats.dead_lettered for stats in service.stats().values())


async def test_foreign_types_and_rubbish_are_not_taken_for_ours(party: Party) -> None:
    if party.peer.name == "nats":
        pytest.skip("capability: dead_letters")
    refused = {
        "not JSON": Posted(body=b"{", content_type=STRUCTURED),
        "no source": Posted(
            body=json.dumps({"specversion": "1.0", "id": "1", "type": "suite.v1.Task"}).encode(),
            content_type=STRUCTURED,
        ),
        "version 0.3": Posted(
            body=envelope("1", specversion="0.3", data={"number": 1}), content_type=STRUCTURED
        ),
        "a batch": Posted(body=b"[]", content_type="application/cloudevents-batch+json"),
        "no protobuf": Posted(
            body=b"\xff", attributes=attributes("1"), content_type="application/protobuf"
        ),
        "XML": Posted(body=b"<a/>", attributes=attributes("1"), content_type="text/xml"),
    }
    skipped = {
        "another package": Posted(
            body=task(1),
            headers={wire.WATERMILL_ID: "1", wire.WATERMILL_NAME: "other.v1.Task"},
        ),
        "another type": Posted(body=task(1), attributes=attributes("1", "other.v1.Task")),
    }
    async with party.running("Mixed") as service:
        for posted in (*refused.values(), *skipped.values()):
            await party.peer.publish(party.topic("mixed"), posted)
        await party.peer.publish(
            party.topic("mixed"), Posted(body=task(99), attributes=attributes("last"))
        )
        await party.received(1)
        dead_letters = service.dead_letters
        topic = next(iter(dead_letters.topics))
        found = await _count(dead_letters, topic, len(refused))
        assert found == len(refused), list(refused)
        assert sum(stats.unhandled for stats in service.stats().values()) == len(skipped)
    assert [it.context.id for it in party.got] == ["last"]


async def _count(dead_letters: Any, topic: str, expected: int) -> int:
    found = 0
    for _ in range(500):
        found = await dead_letters.count(topic)
        if found >= expected:
            break
        await asyncio.sleep(0.02)
    return found


async def test_kafka_headers_that_are_not_text(kafka: Party) -> None:
    headers = {"binary": b"\xff\x00", "text": "t", "Content-Type": "application/protobuf"}
    posted = Posted(body=task(1), attributes=attributes("e-1"), headers=headers)
    async with kafka.running("Work"):
        await kafka.peer.publish(kafka.topic("tasks"), posted)
        (got,) = await kafka.received(1)
    assert got.context.metadata["text"] == "t"
    assert "binary" not in got.context.metadata
    assert ("binary", b"\xff\x00") in list(got.context.message.headers)


async def test_amqp_headers_of_native_types(rabbitmq: Party) -> None:
    deaths = [
        {"queue": "legacy", "reason": "rejected", "count": 2, "exchange": "", "routing-keys": ["a"]}
    ]
    headers = {
        "cloudEvents:specversion": "1.0",
        "cloudEvents:id": "e-1",
        "cloudEvents:source": "/them",
        "cloudEvents:type": "suite.v1.Task",
        "cloudEvents:time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "cloudEvents:number": 5,
        "cloudEvents:flag": True,
        "x-death": deaths,
        "x-delivery-count": 3,
        "x-table": {"a": 1},
        "nothing": None,
    }
    channel = rabbitmq.peer.channel
    async with rabbitmq.running("Work"):
        exchange = await channel.get_exchange("protoflow")
        message = aio_pika.Message(
            task(1),
            headers=cast("Any", headers),
            content_type="application/protobuf",
            correlation_id="c-1",
            message_id="not-this",
            priority=1,
            expiration=60,
        )
        await exchange.publish(message, routing_key=rabbitmq.topic("tasks"))
        (got,) = await rabbitmq.received(1)
    context = got.context
    assert context.id == "e-1"
    assert context.correlation_id == "c-1"
    assert context.attempt == 1
    assert context.cloudevent.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert context.cloudevent.extensions["number"] == "5"
    assert (context.metadata["ce_number"], context.metadata["ce_flag"]) == ("5", "true")
    assert "x-death" not in context.metadata


@pytest.mark.parametrize("party", ["nats", "jetstream"], indirect=True)
async def test_nats_headers_in_any_case_and_encoded(party: Party) -> None:
    headers = {
        "Ce-Specversion": "1.0",
        "CE-ID": "e%201",
        "ce-source": "/caf%C3%A9",
        "ce-type": "suite.v1.Task",
        "ce-subject": '"a \\"b\\""',
        "content-type": "application/protobuf",
    }
    async with party.running("Work"):
        await party.peer.publish(party.topic("tasks"), Posted(body=task(1), headers=headers))
        (got,) = await party.received(1)
    context = got.context
    assert context.id == "e 1"
    assert context.cloudevent.source == "/café"
    assert context.cloudevent.subject == 'a "b"'


async def test_our_events_handler_takes_foreign_events(party: Party) -> None:
    seen: list[Any] = []

    async def remember(event: Any) -> None:
        seen.append(event.event)

    service = Service(party.config())
    service.register_cloudevents_handler("listener", "com.example.order", remember)
    async with service:
        for posted in (
            Posted(
                body=b'{"n": 1}',
                attributes={**attributes("b-1", "com.example.order"), "time": "no time"},
                content_type="application/json",
            ),
            Posted(
                body=envelope("s-1", type="com.example.order", data={"n": 1}, traceid="t"),
                content_type=STRUCTURED,
            ),
            Posted(body=envelope("s-2", type="com.example.order"), content_type=STRUCTURED),
        ):
            await party.peer.publish(party.topic("com.example.order"), posted)
        for _ in range(1500):
            if len(seen) == 3:
                break
            await asyncio.sleep(0.02)
    events = {event.id: event for event in seen}
    assert json.loads(events["b-1"].data) == json.loads(events["s-1"].data) == {"n": 1}
    assert events["b-1"].time is None
    assert events["s-1"].extensions == {"traceid": "t"}
    assert not events["s-2"].data
