"""FastStream, both ways."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("faststream", reason="package: faststream")
from faststream import AckPolicy
from protoflow.transports.nats.names import JetStreamNames, tokens

from tests.acceptance.contract import pb, pf
from tests.interop.conftest import Party
from tests.interop.peers import PATIENCE

ATTRIBUTES = {"specversion": "1.0", "id": "f-1", "source": "/faststream", "type": "suite.v1.Task"}


@asynccontextmanager
async def broker_of(party: Party, topic: str, inbox: asyncio.Queue[Any]) -> AsyncIterator[Any]:
    """FastStream's broker with a subscriber to a topic."""
    made, subscriber = _MAKE[party.peer.name](party, topic)

    async def keep(body: Any, message: Any) -> None:
        inbox.put_nowait((body, message))

    subscriber(keep)
    async with made:
        await made.start()
        yield made


def _kafka(party: Party, topic: str) -> Any:
    from faststream.kafka import KafkaBroker
    from faststream.kafka.annotations import KafkaMessage

    made = KafkaBroker(party.peer.address)
    return made, _annotated(
        KafkaMessage, made.subscriber(topic, auto_offset_reset="earliest", group_id=None)
    )


def _rabbit(party: Party, topic: str) -> Any:
    from faststream.rabbit import ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue
    from faststream.rabbit.annotations import RabbitMessage

    made = RabbitBroker(party.peer.address)
    queue = RabbitQueue(f"{topic}.faststream", routing_key=topic, auto_delete=True)
    exchange = RabbitExchange("protoflow", type=ExchangeType.TOPIC, durable=True)
    return made, _annotated(
        RabbitMessage, made.subscriber(queue, exchange, ack_policy=AckPolicy.ACK)
    )


def _nats(party: Party, topic: str) -> Any:
    from faststream.nats import NatsBroker
    from faststream.nats.annotations import NatsMessage

    made = NatsBroker(party.peer.address)
    return made, _annotated(NatsMessage, made.subscriber(tokens(topic)))


def _jetstream(party: Party, topic: str) -> Any:
    from faststream.nats import JStream, NatsBroker
    from faststream.nats.annotations import NatsMessage

    made = NatsBroker(party.peer.address)
    stream = JetStreamNames("protoflow").stream(topic)
    return made, _annotated(
        NatsMessage,
        made.subscriber(f"protoflow.{tokens(topic)}", stream=JStream(stream, declare=False)),
    )


def _annotated(kind: Any, subscriber: Any) -> Any:
    def decorate(function: Any) -> Any:
        function.__annotations__["message"] = kind
        return subscriber(function)

    return decorate


_MAKE = {"kafka": _kafka, "rabbitmq": _rabbit, "nats": _nats, "jetstream": _jetstream}


async def publish(party: Party, broker: Any, body: Any, headers: Mapping[str, str]) -> None:
    topic = party.topic("tasks")
    if party.peer.name == "rabbitmq":
        await broker.publish(body, topic, exchange="protoflow", headers=dict(headers))
    elif party.peer.name == "jetstream":
        await broker.publish(body, f"protoflow.{tokens(topic)}", headers=dict(headers))
    elif party.peer.name == "nats":
        await broker.publish(body, tokens(topic), headers=dict(headers))
    else:
        await broker.publish(body, topic, headers=dict(headers))


async def test_both_ways(party: Party) -> None:
    inbox: asyncio.Queue[Any] = asyncio.Queue()
    async with (
        party.running("Work", encoding="json") as service,
        broker_of(party, party.topic("tasks"), inbox) as broker,
    ):
        await pf.SuiteEventProducer(service).publish_task(
            pb.Task(number=7, key="k"), metadata={"correlation_id": "c-1"}, id="o-1"
        )
        async with asyncio.timeout(PATIENCE):
            body, message = await inbox.get()
        assert body == {"number": 7, "key": "k"}
        assert message.correlation_id == "c-1"
        assert message.headers["correlation_id"] == "c-1"
        if party.peer.name in ("kafka", "rabbitmq"):
            assert message.content_type == "application/json"
        prefix = party.peer.prefix
        attributes = {prefix + name: value for name, value in ATTRIBUTES.items()}
        await publish(party, broker, {"number": 8, "key": "k"}, attributes)
        await publish(party, broker, pb.Task(number=9).SerializeToString(), {})
        got = await party.received(3)
    by_number = {it.message.number: it for it in got}
    assert set(by_number) == {7, 8, 9}
    assert by_number[8].context.id == "f-1"
    # FastStream's own correlation ids, where it writes any, are understood.
    assert by_number[8].context.correlation_id
