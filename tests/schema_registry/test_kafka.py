"""Services with frames on Kafka, against a real registry and the library of Confluent."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, cast

import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaRegistryClient,
    header_schema_id_serializer,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from protoflow import Message, Output, Service
from protoflow.codecs.framing import HEADER, is_framed, read
from protoflow.connection import Connection, connect_sync
from protoflow.contract.spec import Start
from protoflow.errors import SchemaRegistryError, TopologyError

from tests.brokers import url_or_skip
from tests.schema_registry.conftest import Place
from tests.schema_registry.fake import FakeRegistry

#: The frame and its parts are what Confluent's library would have written.
PLAIN = {"subject.name.strategy": topic_subject_name_strategy}


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def billing(contract: Any, pb2: Any, seen: list[Any], topic: str | None = None) -> Any:
    class Billing(contract.BillingHandler):  # type: ignore[misc, name-defined]
        async def bill_order(self, order: Any, context: Any, /) -> Any:
            seen.append((order, context))
            if order.card == "broken":
                raise ValueError("broken card")
            return Output(pb2.OrderBilled(order_id=order.order_id), topic=topic)

    return Billing()


def shipping(contract: Any, seen: list[Any]) -> Any:
    class Shipping(contract.ShippingHandler):  # type: ignore[misc, name-defined]
        async def placed(self, order: Any, context: Any, /) -> None:
            seen.append(("placed", order.order_id))

        async def shipped(self, order: Any, context: Any, /) -> None:
            seen.append(("shipped", order.order_id))

    return Shipping()


async def stored(connection: Any, topic: str) -> Message:
    """The first message of a topic, once it is there."""
    read_topic = connection.transport.read_topic
    async with asyncio.timeout(60):
        while True:
            try:
                async with aclosing(
                    read_topic(topic, start=Start.EARLIEST, follow=True)
                ) as records:
                    return cast(Message, (await anext(records)).message)
            except TopologyError:  # the topic is made with its first message
                await asyncio.sleep(0.1)


@contextmanager
def confluent(place: Place) -> Iterator[SchemaRegistryClient]:
    """The client of Confluent's library, closed at the end."""
    with SchemaRegistryClient({"url": place.registry_url}) as client:
        yield client


async def test_frames_of_a_service_are_those_of_confluents_library(
    place: Place, contract: Any, pb2: Any
) -> None:
    seen: list[Any] = []
    order = pb2.OrderPlaced(order_id="7", counts={"a": 1})
    config = place.config(registry={"format": "serialized"})
    service = Service(config)
    service.register(billing(contract, pb2, seen))
    async with service, Connection(config) as connection:
        await contract.OrdersEventProducer(connection).publish_order_placed(order)
        billed = await stored(connection, place.topic("orders.billed"))
        placed = await stored(connection, place.topic("orders.placed"))
    assert seen[0][0] == order
    assert seen[0][1].message.payload == order.SerializeToString()
    with confluent(place) as client:
        for message, kind in ((placed, pb2.OrderPlaced), (billed, pb2.OrderBilled)):
            context = SerializationContext(message.topic, MessageField.VALUE)
            theirs = ProtobufDeserializer(kind, dict(PLAIN), client)
            assert theirs(message.payload, context).order_id == "7"
            latest = client.get_latest_version(f"{message.topic}-value")
            frame, _length = read(message.payload or b"")
            assert frame.schema == latest.schema_id
    assert [one.name for one in latest.schema.references] == ["registry/v1/common.proto"]


async def test_a_service_reads_what_confluents_library_wrote(
    place: Place, contract: Any, pb2: Any
) -> None:
    """Their messages name no type, so the registry tells it; ours are text, theirs base64."""
    seen: list[Any] = []
    topic = place.topic("orders.placed")
    service = Service(place.config())
    service.register(shipping(contract, seen))
    with confluent(place) as client:
        async with service, Connection(place.config()) as connection:
            for kind in (pb2.OrderPlaced, pb2.OrderShipped):
                theirs = ProtobufSerializer(kind, client, dict(PLAIN))
                payload = await asyncio.to_thread(
                    theirs, kind(order_id="7"), SerializationContext(topic, MessageField.VALUE)
                )
                await connection.publish(
                    Message(id=str(uuid.uuid4()), topic=topic, payload=payload)
                )
            await contract.OrdersEventProducer(connection).publish_order_shipped(
                pb2.OrderShipped(order_id="8")
            )
            await until(lambda: len(seen) == 3)
    assert sorted(seen) == [("placed", "7"), ("shipped", "7"), ("shipped", "8")]


async def test_dead_letters_and_replays_keep_the_frame(
    place: Place, contract: Any, pb2: Any
) -> None:
    seen: list[Any] = []
    order = pb2.OrderPlaced(order_id="7", card="broken")
    service = Service(place.config())
    service.register(billing(contract, pb2, seen))
    async with service, Connection(place.config()) as connection:
        await contract.OrdersEventProducer(connection).publish_order_placed(order)
        topic = place.topic("orders.placed") + "..billing..dead"
        dead = await stored(connection, topic)
        assert is_framed(dead.payload or b"")
        assert [one[0] for one in seen] == [order, order]
        assert dead.metadata["pf_error_type"] == "ValueError"
        seen.clear()
        replayed = await connection.dead_letters.replay(topic)
        assert replayed
        await until(lambda: seen)
        assert seen[0][0] == order


async def test_topics_that_a_handler_chooses_get_subjects_at_the_first_output(
    place: Place, contract: Any, pb2: Any
) -> None:
    seen: list[Any] = []
    service = Service(place.config())
    service.register(billing(contract, pb2, seen, topic="elsewhere"))
    async with service:
        await contract.OrdersEventProducer(service).publish_order_placed(
            pb2.OrderPlaced(order_id="7")
        )
        billed = await stored(service, place.topic("elsewhere"))
        assert len(seen) == 1, "the handler ran once"
        await service.publish_proto("direct", pb2.OrderShipped(order_id="9"))
        direct = await stored(service, place.topic("direct"))
    assert read(direct.payload or b"")[0].path == (2,)
    with confluent(place) as client:
        subjects = client.get_subjects()
    assert {f"{billed.topic}-value", f"{direct.topic}-value"} <= set(subjects)


async def test_producers_without_an_event_loop_write_frames(
    place: Place, contract: Any, pb2: Any
) -> None:
    def publish() -> None:
        config = place.config()
        with connect_sync(
            place.url, namespace=place.namespace, environ={}, schema_registry=config.registry
        ) as publisher:
            publications = contract.OrdersEventProducer.__protoflow_spec__.publications
            output = Output(pb2.OrderPlaced(order_id="7"))
            publisher.publish_outputs(publications["publish_order_placed"], [output])

    await asyncio.to_thread(publish)
    async with Connection(place.config()) as connection:
        message = await stored(connection, place.topic("orders.placed"))
    assert is_framed(message.payload or b"")


async def test_ids_in_headers_are_guids_as_in_confluents_library(contract: Any, pb2: Any) -> None:
    """Apicurio 3.0 has no GUIDs, so the registry is one of the tests, and Confluent's mock."""
    async with FakeRegistry().serving() as fake:
        place = Place(url_or_skip("kafka"), fake.url)
        config = place.config(registry={"ids": "header"})
        seen: list[Any] = []
        service = Service(config)
        service.register(billing(contract, pb2, seen))
        topic = place.topic("orders.placed")
        async with service, Connection(config) as connection:
            await contract.OrdersEventProducer(connection).publish_order_placed(
                pb2.OrderPlaced(order_id="7")
            )
            placed = await stored(connection, topic)
            headers: dict[str, bytes] = dict(placed.headers)
            assert placed.payload == pb2.OrderPlaced(order_id="7").SerializeToString()
            assert headers[HEADER][:1] == b"\1"
            context = SerializationContext(topic, MessageField.VALUE, list(placed.headers))
            theirs = ProtobufDeserializer(pb2.OrderPlaced, dict(PLAIN))
            assert theirs(placed.payload, context).order_id == "7"
            # theirs: the same schema has another GUID in their mock, so it is told to the fake
            mock = SchemaRegistryClient.new_client({"url": "mock://guids"})
            written = SerializationContext(topic, MessageField.VALUE, {})
            serializer = ProtobufSerializer(
                pb2.OrderPlaced, mock,
                {**PLAIN, "schema.id.serializer": header_schema_id_serializer},
            )  # fmt: skip
            payload = serializer(pb2.OrderPlaced(order_id="8"), written)
            schema = mock.get_latest_version(f"{topic}-value")
            fake.schemas.append((str(schema.schema.schema_str), str(schema.guid)))
            foreign = Message(
                id="8", topic=topic, payload=payload, headers=tuple(written.headers.items())
            )
            await connection.publish(foreign)
            await until(lambda: len(seen) == 2)
        assert [order.order_id for order, _context in seen] == ["7", "8"]
        assert seen[1][1].metadata == {}


async def test_messages_wait_for_a_registry_that_is_down(contract: Any, pb2: Any) -> None:
    """No attempt is counted, known types still flow, and readiness tells why."""
    async with FakeRegistry().serving() as fake:
        place = Place(url_or_skip("kafka"), fake.url)
        config = place.config(registry={"timeout": 1, "longest_wait": 0.5})
        topic = place.topic("orders.placed")
        seen: list[Any] = []
        other = place.config(registry={"subject_strategy": "record"})
        async with Connection(other) as connection:
            await connection.publish_proto("orders.placed", pb2.OrderPlaced(order_id="known"))
            known = await stored(connection, topic)
        service = Service(config)
        service.register(billing(contract, pb2, seen))
        async with service:
            await until(lambda: len(seen) == 1)
            fake.status = 503
            foreign = b"\0\0\0\0\x07\0" + pb2.OrderPlaced(order_id="late").SerializeToString()
            await service.publish(Message(id="late", topic=topic, payload=foreign))
            framed = known.payload or b""
            await service.publish(Message(id="typed", topic=topic, payload=framed,
                metadata={"ce_type": "registry.v1.OrderPlaced"}))  # fmt: skip
            await until(lambda: len(seen) == 2)
            await until(lambda: not service.health().ready)
            await until(lambda: fake.requests.count("GET /schemas/ids/7") >= 3)
            assert "as told" in str(service.health())
            text = next(schema for schema, _guid in fake.schemas if "OrderPlaced {" in schema)
            fake.schemas += [(text, "") for _ in range(7 - len(fake.schemas))]
            fake.status = 0
            await until(lambda: len(seen) == 3)
            await until(lambda: service.health().ready)
            assert seen[2][1].attempt == 1
            assert [order.order_id for order, _context in seen] == ["known", "known", "late"]
            stats = service.stats()["registry.v1.Billing.BillOrder"]
            assert (stats.retried, stats.failed_runs) == (0, 0)


async def test_an_incompatible_schema_stops_the_start(
    place: Place, contract: Any, pb2: Any
) -> None:
    subject = f"{place.topic('orders.billed')}-value"
    text = 'syntax = "proto3";\npackage registry.v1;\nmessage OrderBilled { int64 order_id = 1; }\n'
    with confluent(place) as client:
        client.register_schema(subject, Schema(text, "PROTOBUF"))
        client.set_compatibility(subject, "BACKWARD")
    service = Service(place.config())
    service.register(billing(contract, pb2, []))
    with pytest.raises(SchemaRegistryError, match="Incompatible artifact") as caught:
        await service.start()
    assert str(caught.value).startswith(
        "registry/v1/orders.proto: registry.v1.OrderBilled in topic "
    )
    assert f"subject {subject}" in str(caught.value)
