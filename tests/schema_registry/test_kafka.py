"""Services with frames on Kafka, against a real registry and the library of Confluent."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import protoflow
from confluent_kafka.schema_registry import (
    SchemaRegistryClient,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from protoflow import Message, Service
from protoflow.codecs.framing import read
from protoflow.connection import Connection

from tests.schema_registry.conftest import Place


async def until(condition: Any, seconds: float = 40) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def billing(contract: Any, pb2: Any, seen: list[Any]) -> Any:
    class Billing(contract.BillingHandler):  # type: ignore[misc]
        async def bill_order(self, order: Any, context: Any, /) -> Any:
            seen.append((order, context.message, context.delivery))
            if order.card == "broken":
                raise ValueError("broken card")
            return pb2.OrderBilled(order_id=order.order_id)

    return Billing()


async def test_a_service_reads_and_writes_frames(place: Place, contract: Any, pb2: Any) -> None:
    seen: list[Any] = []
    service = Service(place.config())
    service.register(billing(contract, pb2, seen))
    async with service, Connection(place.config()) as connection:
        order = pb2.OrderPlaced(order_id="7", counts={"a": 1})
        await contract.OrderPlacedProducer(connection).publish_order_placed(order)
        await until(lambda: seen)
    got, message, delivery = seen[0]
    assert got == order
    print(delivery.message.payload)
