"""Handlers without generated code, and publishing without generated producers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypedDict

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from protoflow import CloudEvent, Context, EventContext, Message, testing, wire
from protoflow.errors import RegistrationError
from protoflow.outcomes import DeadLetter, Retry, RetryAfter, Skip, Unprocessable
from protoflow.service import Service


@dataclass
class Order:
    id: str
    cents: int = 0


class Bill(TypedDict):
    id: str
    cents: int


async def test_raw_messages_are_handled_and_what_is_returned_is_published() -> None:
    async def relay(message: Message, context: Context) -> Message:
        return Message(id="out", topic="out", payload=message.payload)

    def setup(service: Service) -> None:
        service.register_message_handler("relay", "in", relay)

    async with testing.run(setup=setup) as tested:
        await tested.service.publish(Message(id="1", topic="in", payload=b"x"))
        await tested.settled()
        assert [m.payload for m in tested.messages if m.topic == "out"] == [b"x"]


async def test_json_is_read_as_the_type_and_written_with_correlation() -> None:
    seen: list[Order] = []

    async def bill(order: Order, context: Context) -> Bill:
        seen.append(order)
        return {"id": order.id, "cents": 5}

    def setup(service: Service) -> None:
        service.register_json_handler("bill", "orders", bill, type=Order, publish_topic="bills")

    async with testing.run(setup=setup) as tested:
        payload = b'{"id": "7", "cents": 2, "new_field": true}'
        await tested.service.publish(Message(id="1", topic="orders", payload=payload))
        await tested.settled()
        assert seen == [Order("7", 2)]
        (out,) = [m for m in tested.messages if m.topic == "bills"]
        assert json.loads(out.payload or b"") == {"id": "7", "cents": 5}
        assert out.metadata[wire.CORRELATION_ID] == "1"


async def test_what_is_no_json_is_dead_lettered_at_once_without_its_payload_in_the_cause() -> None:
    async def bill(order: Order, context: Context) -> None:
        raise AssertionError("must not be called")

    def setup(service: Service) -> None:
        service.register_json_handler("bill", "orders", bill, type=Order)

    async with testing.run(setup=setup) as tested:
        await tested.service.publish(Message(id="1", topic="orders", payload=b'{"secret'))
        await tested.settled()
        (dead_letter,) = tested.dead_letters
        assert dead_letter.message.metadata[wire.PF_ERROR_CLASS] == "decode"
        assert "secret" not in dead_letter.message.metadata[wire.PF_ERROR_MESSAGE]


async def test_protobuf_without_a_generated_module() -> None:
    async def count(text: StringValue, context: Context) -> Int64Value:
        return Int64Value(value=len(text.value))

    def setup(service: Service) -> None:
        service.register_proto_handler(
            "count", "texts", StringValue, count, output_class=Int64Value, publish_topic="counts"
        )

    async with testing.run(setup=setup) as tested:
        await tested.service.publish_proto("texts", StringValue(value="four"))
        await tested.settled()
        assert tested.published(Int64Value) == [Int64Value(value=4)]


@pytest.mark.parametrize(
    ("outcome", "attempts", "dead_letters"),
    [
        (None, 1, 0),
        (Retry("later"), 5, 1),
        (RetryAfter(timedelta(hours=1)), 5, 1),
        (DeadLetter("no"), 1, 1),
        (Unprocessable("bad"), 1, 1),
        (Skip("not ours"), 1, 0),
        (RuntimeError("any"), 5, 1),
    ],
)
async def test_the_vocabulary_of_event_handlers(
    outcome: Exception | None, attempts: int, dead_letters: int
) -> None:
    async def handle(event: EventContext) -> None:
        if outcome is not None:
            raise outcome

    def setup(service: Service) -> None:
        service.register_cloudevents_handler("handle", "shop.placed", handler=handle)

    async with testing.run(setup=setup) as tested:
        await tested.service.publish_data("shop.placed", "/shop", {"id": 1})
        await tested.settled()
        assert (len(tested.runs), len(tested.dead_letters)) == (attempts, dead_letters)


async def test_max_attempts_of_an_event_handler() -> None:
    async def handle(event: EventContext) -> None:
        raise RuntimeError

    def setup(service: Service) -> None:
        service.register_cloudevents_handler("handle", "t", handle, max_attempts=2)

    async with testing.run(setup=setup) as tested:
        await tested.service.publish_data("t", "/shop", 1)
        await tested.settled()
        assert len(tested.runs) == 2


async def test_events_carry_every_option() -> None:
    events: list[CloudEvent] = []
    data: list[Any] = []

    async def handle(event: EventContext) -> None:
        events.append(event.event)
        data.append(event.unmarshal_data(Order))
        await event.publish("shop.billed", "/billing", {"id": "7"})

    def setup(service: Service) -> None:
        service.consume_events("shop.placed", handle)

    async with testing.run(setup=setup) as tested:
        await tested.service.publish_data(
            "shop.placed", "/shop", Order("7"),
            subject="7", correlation_id="c", data_schema="urn:order",
            extensions={"tenant": "a", "test": True}, max_attempts=9,
            trace_id="0af7651916cd43dd8448eb211c80319c", parent_id="b7ad6b7169203331",
        )  # fmt: skip
        await tested.settled()
    (event,) = events
    assert data == [Order("7")]
    assert (event.subject, event.data_schema) == ("7", "urn:order")
    assert event.extensions == {"tenant": "a", "test": "true"}
    assert event.metadata[wire.CORRELATION_ID] == "c"
    assert event.metadata[wire.PF_MAX_ATTEMPTS] == "9"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert event.metadata[wire.TRACEPARENT] == trace
    (billed,) = [m for m in tested.messages if m.topic == "shop.billed"]
    assert billed.metadata[wire.CORRELATION_ID] == "c"
    assert billed.metadata[wire.CAUSATION_ID] == event.id
    assert billed.metadata[wire.TRACEPARENT] == trace


async def test_a_delayed_event_comes_when_it_is_due() -> None:
    times: list[float] = []

    async def handle(event: EventContext) -> None:
        times.append(tested.clock.now())

    def setup(service: Service) -> None:
        service.consume_events("t", handle)

    async with testing.run(setup=setup) as tested:
        start = tested.clock.now()
        await tested.service.publish_data_after("t", "/s", 1, timedelta(hours=2))
        event = CloudEvent(type="t", source="/s", data=2)
        await tested.service.publish_event_after(event, timedelta(hours=1))
        await tested.settled()
    assert [round(time - start) for time in times] == [3600, 7200]


def test_names_are_unique_and_registration_ends_at_the_start() -> None:
    async def handle(event: EventContext) -> None: ...

    service = Service()
    service.register_cloudevents_handler("a", "t", handle)
    with pytest.raises(RegistrationError, match="a: already registered"):
        service.register_cloudevents_handler("a", "u", handle)


@pytest.mark.parametrize("name", ["pf_x", "Upper", "id", "data"])
def test_extension_names_follow_the_specification(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        CloudEvent(type="t", source="/s", extensions={name: "x"})
