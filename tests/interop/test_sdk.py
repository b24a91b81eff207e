"""The CloudEvents SDK for Python, both ways: it says what a binding is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("cloudevents.core", reason="package: cloudevents")
from cloudevents.core.bindings import amqp, http
from cloudevents.core.bindings import kafka as kafka_binding
from cloudevents.core.bindings import rabbitmq as rabbitmq_binding
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent

from tests.acceptance.contract import pb, pf
from tests.interop.conftest import Party
from tests.interop.peers import Posted

TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROTOBUF = "application/protobuf"


def event(id: str, data: Any, data_content_type: str) -> CloudEvent:
    return CloudEvent(
        attributes={
            "id": id,
            "type": "suite.v1.Task",
            "source": "/café au lait",
            "subject": 'a "b" 100%',
            "time": TIME,
            "datacontenttype": data_content_type,
            "comexampleext": "x",
        },
        data=data,
    )


def events() -> list[CloudEvent]:
    return [
        event("protobuf", pb.Task(number=1).SerializeToString(), PROTOBUF),
        event("json", {"number": 1}, "application/json"),
    ]


async def check(party: Party, count: int) -> None:
    """Each event came to a handler of ours, with its attributes."""
    for got in await party.received(count):
        assert got.message == pb.Task(number=1)
        metadata = got.context.message.metadata
        assert metadata["ce_source"] == "/café au lait"
        assert metadata["ce_subject"] == 'a "b" 100%'
        assert metadata["ce_comexampleext"] == "x"
        assert metadata["ce_time"].startswith("2026-01-02T03:04:05")
    assert {got.context.id for got in party.got} == {"protobuf", "json"}


async def test_kafka_reads_the_sdk(kafka: Party) -> None:
    async with kafka.running("Work"):
        for sent in events():
            for made in (
                kafka_binding.to_binary_event(sent),
                kafka_binding.to_structured_event(sent),
            ):
                await kafka.peer.publish(
                    kafka.topic("tasks"), Posted(body=made.value, headers=made.headers)
                )
        await check(kafka, 4)


async def test_the_sdk_reads_kafka(kafka: Party) -> None:
    for structured in (False, True):
        async with (
            kafka.running("Work", structured=structured) as service,
            kafka.peer.watch(kafka.topic("tasks")) as watch,
        ):
            if structured:
                await watch.take()  # that of the first round
            await pf.SuiteEventProducer(service).publish_task(pb.Task(number=7, key="k"), id="1")
            raw = await watch.take()
        message = kafka_binding.KafkaMessage(
            headers={name: value.encode() for name, value in raw.headers.items()},
            key=raw.key,
            value=raw.body,
        )
        read = kafka_binding.from_kafka(message, JSONFormat())
        check_ours(read)
        assert read.get_extension("partitionkey") == "k"


async def test_rabbitmq_reads_the_sdk(rabbitmq: Party) -> None:
    async with rabbitmq.running("Work"):
        for sent in events():
            for made in (amqp.to_binary_event(sent), amqp.to_structured_event(sent)):
                posted = Posted(
                    body=made.application_data,
                    headers=made.application_properties,
                    content_type=made.properties["content-type"],
                )
                await rabbitmq.peer.publish(rabbitmq.topic("tasks"), posted)
            knative = rabbitmq_binding.to_binary_event(sent)
            posted = Posted(
                body=knative.body, headers=knative.headers, content_type=knative.content_type
            )
            await rabbitmq.peer.publish(rabbitmq.topic("tasks"), posted)
        await check(rabbitmq, 6)


async def test_the_sdk_reads_rabbitmq(rabbitmq: Party) -> None:
    for structured in (False, True):
        async with (
            rabbitmq.running("Work", structured=structured) as service,
            rabbitmq.peer.watch(rabbitmq.topic("tasks")) as watch,
        ):
            await pf.SuiteEventProducer(service).publish_task(pb.Task(number=7, key="k"), id="1")
            raw = await watch.take()
        message = amqp.AMQPMessage(
            properties={"content-type": raw.properties.content_type},
            application_properties=raw.headers,
            application_data=raw.body,
        )
        check_ours(amqp.from_amqp(message, JSONFormat()))


@pytest.mark.parametrize("party", ["nats", "jetstream"], indirect=True)
async def test_nats_reads_the_sdk(party: Party) -> None:
    """The SDK has no binding for NATS, whose attributes are written as HTTP's are."""
    async with party.running("Work"):
        for sent in events():
            for made in (http.to_binary_event(sent), http.to_structured_event(sent)):
                posted = Posted(body=made.body, headers=made.headers)
                await party.peer.publish(party.topic("tasks"), posted)
        await check(party, 4)


@pytest.mark.parametrize("party", ["nats", "jetstream"], indirect=True)
async def test_the_sdk_reads_nats(party: Party) -> None:
    for structured in (False, True):
        async with (
            party.running("Work", structured=structured) as service,
            party.peer.watch(party.topic("tasks")) as watch,
        ):
            if structured and party.peer.name == "jetstream":
                await watch.take()
            task = pb.Task(number=7, key="k", note='a "b" 100%')
            # JetStream drops what has an id that it has seen.
            identity = f"1-{structured}"
            await pf.SuiteEventProducer(service).publish_task(task, id=identity)
            raw = await watch.take()
        headers = {name.lower(): value for name, value in raw.headers.items()}
        if not structured:
            headers["content-type"] = headers.pop("ce-datacontenttype")
        read = http.from_http_event(http.HTTPMessage(headers=headers, body=raw.body))
        assert read.get_subject() == 'a "b" 100%'
        check_ours(read, identity)


def check_ours(read: Any, identity: str = "1") -> None:
    data = read.get_data()
    task = pb.Task.FromString(data if isinstance(data, bytes) else data.encode())
    assert task.number == 7
    assert read.get_id() == identity
    assert read.get_type() == "suite.v1.Task"
    assert read.get_source() == "/suite"
    assert read.get_datacontenttype() == PROTOBUF
    assert abs((datetime.now(UTC) - read.get_time()).total_seconds()) < 120
