"""We publish, they read: the headers are those of CloudEvents' bindings, and all text."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import protoflow
from protoflow import CloudEvent, Output, wire

from tests.acceptance.contract import pb, pf
from tests.acceptance.harness import handler
from tests.interop.conftest import ONCE, Party
from tests.interop.peers import Posted, Raw, Watch

_FOREIGN = {"specversion": "1.0", "id": "in", "source": "/a", "type": "suite.v1.Task"}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def attributes(party: Party, raw: Raw) -> dict[str, Any]:
    """The CloudEvents attributes of a message, by the binding; the time is checked."""
    prefix = party.peer.prefix
    found = {
        name[len(prefix) :]: value
        for name, value in raw.headers.items()
        if name.startswith(prefix) and name != party.peer.content_type
    }
    time = found.pop("time")
    assert TIME.fullmatch(time), time
    return found


def content_type(party: Party, raw: Raw) -> Any:
    if party.peer.content_type is None:
        return raw.properties.content_type
    return raw.headers[party.peer.content_type]


async def test_a_message_of_a_contract(party: Party) -> None:
    encoded = {"nats", "jetstream"}
    async with party.running("Work") as service, party.peer.watch(party.topic("tasks")) as watch:
        producer = pf.SuiteEventProducer(service)
        task = pb.Task(number=7, key="k", note="a b%é")
        await producer.publish_task(task, id="id 1", metadata={"color": "red"})
        raw = await watch.take()
        subject = "a%20b%25%C3%A9" if party.peer.name in encoded else "a b%é"
        identity = "id%201" if party.peer.name in encoded else "id 1"
        expected = {
            "id": identity,
            "specversion": "1.0",
            "type": "suite.v1.Task",
            "source": "/suite",
            "subject": subject,
        }
        if party.peer.name in encoded:
            expected["partitionkey"] = "k"
        assert attributes(party, raw) == expected
        assert content_type(party, raw) == "application/protobuf"
        assert raw.headers["color"] == "red"
        assert pb.Task.FromString(raw.body) == task
        prefix = party.peer.prefix
        rest = {name for name in raw.headers if not name.startswith(prefix)}
        own = {"kafka": {"content-type"}, "rabbitmq": {"pf_key"}, "jetstream": {"Nats-Msg-Id"}}
        assert rest == {"color"} | own.get(party.peer.name, set())
        assert all(isinstance(value, str) for value in raw.headers.values())
        if party.peer.name == "kafka":
            assert raw.key == b"k"
        if party.peer.name == "rabbitmq":
            assert raw.properties.message_id == "id 1"
            assert raw.properties.type == "suite.v1.Task"
            assert raw.properties.delivery_mode == 2
            assert raw.properties.timestamp is not None
            assert raw.headers["pf_key"] == "k"


async def test_json_and_a_data_schema(party: Party) -> None:
    async with (
        party.running("Work") as service,
        _watched(party, service, "reports") as watch,
    ):
        await pf.SuiteEventProducer(service).publish_report(pb.Report(id=5, text="t"))
        raw = await watch.take()
    found = attributes(party, raw)
    assert (found["type"], found["dataschema"]) == (
        "suite.report.v1",
        "https://example.com/report",
    )
    assert content_type(party, raw) == "application/json"
    assert json.loads(raw.body) == {"id": "5", "text": "t"}


async def test_structured_mode(party: Party) -> None:
    async with (
        party.running("Work", structured=True) as service,
        party.peer.watch(party.topic("tasks")) as watch,
    ):
        task = pb.Task(number=7, key="k")
        await pf.SuiteEventProducer(service).publish_task(task, id="1")
        raw = await watch.take()
        envelope = json.loads(raw.body)
        assert TIME.fullmatch(envelope.pop("time"))
        assert base64.b64decode(envelope.pop("data_base64")) == task.SerializeToString()
        assert envelope == {
            "specversion": "1.0",
            "id": "1",
            "type": "suite.v1.Task",
            "source": "/suite",
            "datacontenttype": "application/protobuf",
        }
        if party.peer.name == "rabbitmq":
            assert raw.properties.content_type == wire.CLOUDEVENTS_JSON
        else:
            names = {name.lower(): value for name, value in raw.headers.items()}
            assert names["content-type"] == wire.CLOUDEVENTS_JSON
        assert not [name for name in raw.headers if name.startswith(party.peer.prefix)]
        # Our own consumers read it, too.
        (got,) = await party.received(1)
        assert got.message == task
        assert (got.context.id, got.context.key) == ("1", b"k")


async def test_an_output_names_its_cause(party: Party) -> None:
    async def transform(task: Any, context: Any, /) -> Any:
        return Output(pb.Done(number=task.number), metadata={"color": "red"})

    service = protoflow.Service(party.config(handlers={"suite.v1.Transform.Transform": ONCE}))
    service.register(handler("Transform", transform))
    async with service, _watched(party, service, "done") as watch:
        parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await party.peer.publish(
            party.topic("tasks"),
            Posted(
                body=pb.Task(number=3).SerializeToString(),
                attributes={
                    "specversion": "1.0",
                    "id": "in",
                    "source": "/a",
                    "type": "suite.v1.Task",
                },
                headers={"correlation_id": "c-1", "traceparent": parent, "pf_attempt": "3"},
                content_type="application/protobuf",
            ),
        )
        raw = await watch.take()
    assert raw.headers["correlation_id"] == "c-1"
    assert raw.headers["causation_id"] == "in"
    assert raw.headers["traceparent"] == parent
    assert not [name for name in raw.headers if name in ("pf_attempt", "pf_group")]
    if party.peer.name == "rabbitmq":
        assert raw.properties.correlation_id == "c-1"
    assert all(isinstance(value, str) for value in raw.headers.values())


async def test_events_of_ones_own(party: Party) -> None:
    event = CloudEvent(
        type="com.example.made",
        source="/ours",
        id="e-1",
        data={"n": 1},
        extensions={"flag": True, "count": 5},
    )
    async with (
        party.running("Work") as service,
        _watched(party, service, "com.example.made") as watch,
    ):
        await service.publish_event(event)
        raw = await watch.take()
    prefix = party.peer.prefix
    assert (raw.headers[f"{prefix}flag"], raw.headers[f"{prefix}count"]) == ("true", "5")
    assert json.loads(raw.body) == {"n": 1}


async def test_the_profile_for_watermill(party: Party) -> None:
    settings: dict[str, Any] = {
        "profile": "watermill",
        "type_names": {"*suitev1.Task": "suite.v1.Task"},
    }
    async with (
        party.running("Work", **settings) as service,
        party.peer.watch(party.topic("tasks")) as watch,
    ):
        id = await pf.SuiteEventProducer(service).publish_task(pb.Task(number=1))
        raw = await watch.take()
        assert raw.headers[wire.WATERMILL_ID] == id
        assert raw.headers[wire.GO_SCHEMA] == "*suitev1.Task"
        assert raw.headers[wire.WATERMILL_NAME] == "suitev1.Task"
        assert all(isinstance(value, str) for value in raw.headers.values())
        (got,) = await party.received(1)
        assert got.context.id == id
        await service.publish_event(
            CloudEvent(
                type="suite.v1.Task",
                source="/a",
                id="e-2",
                data_content_type="application/protobuf",
                data=b"\x08\x02",
            ),
            topic="tasks",
        )
        event = await watch.take()
        assert event.headers[wire.WATERMILL_ID] == "e-2"
        assert event.headers[wire.WATERMILL_NAME] == "suitev1.Task"


async def test_keys_that_are_not_text(rabbitmq: Party) -> None:
    async with (
        rabbitmq.running("Work") as service,
        rabbitmq.peer.watch(rabbitmq.topic("tasks")) as watch,
    ):
        await pf.SuiteEventProducer(service).publish_task(pb.Task(number=1), key=b"\xff\x00")
        raw = await watch.take()
        assert all(isinstance(value, str) for value in raw.headers.values())
        (got,) = await rabbitmq.received(1)
        assert got.context.key == b"\xff\x00"


@asynccontextmanager
async def _watched(party: Party, service: Any, name: str) -> AsyncIterator[Watch]:
    """Watches a topic that nobody of ours consumes."""
    await party.make(service, name)
    async with party.peer.watch(party.topic(name)) as watch:
        yield watch
