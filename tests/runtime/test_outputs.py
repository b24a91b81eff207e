"""What an output may say of itself: reserved names, and what it inherits."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import Int64Value, StringValue
from hypothesis import given
from hypothesis import strategies as st
from protoflow import Context, Service, connect, testing, wire
from protoflow.errors import InvalidMessageError, PublishRefusedError
from protoflow.events import CloudEvent, EventContext
from protoflow.message import Delivery, Message
from protoflow.output import Output
from protoflow.wire import Profile

from tests.middleware.harness import TO_DONE, TO_WORK, config, put, running, worker

BAD = {
    "ce_type": "a.B",
    "ce-type": "a.B",
    "content-type": "text/plain",
    "message_id": "x",
    "pf_due": "9999999999",
    "CC": "other.queue",
    "Nats-Msg-Id": "1",
    "x-delay": "1000",
}


async def publish(metadata: Any, **output: Any) -> Message:
    async with testing.run(config=config()) as tested:
        await tested.publish_outputs(
            TO_WORK, [Output(StringValue(value="a"), metadata=metadata, **output)]
        )
        return tested.messages[0]


@pytest.mark.parametrize("name", sorted(BAD))
async def test_reserved_names_are_refused_with_name_and_fix(name: str) -> None:
    with pytest.raises(InvalidMessageError) as caught:
        await publish({"tenant": "acme", name: BAD[name]})
    assert repr(name) in str(caught.value)
    assert "context.metadata" in str(caught.value)
    assert BAD[name] not in str(caught.value) or len(BAD[name]) == 1


@pytest.mark.parametrize(
    ("metadata", "text"),
    [
        ({"a": 1}, "metadata 'a': the value is int, not text; convert it with str()"),
        ({"a": None}, "metadata 'a': the value is NoneType, not text; convert it with str()"),
        ({1: "a"}, "metadata: the name 1 is not text; names and values are str"),
        ({"a": "\ud800"}, "metadata 'a': a lone surrogate cannot be sent; remove it"),
        ([("a", "b")], "metadata: list is no mapping of str to str"),
    ],
)
async def test_metadata_that_is_no_text_is_refused(metadata: Any, text: str) -> None:
    with pytest.raises(InvalidMessageError, match="^" + text[:8]) as caught:
        await publish(metadata)
    assert str(caught.value) == f"{text} [PF408]"


@pytest.mark.parametrize("id", ["a\nb", "\ud800", 7])
async def test_an_id_that_no_broker_takes_is_refused(id: Any) -> None:
    with pytest.raises(InvalidMessageError, match=r"^id: "):
        await publish(None, id=id)


async def test_a_key_that_has_no_utf8_is_refused() -> None:
    with pytest.raises(InvalidMessageError, match=r"^key: a lone surrogate"):
        await publish(None, key="\ud800")


async def test_extension_attributes_pass() -> None:
    message = await publish({"ce_tenant": "acme", "x-request-id": "7"})
    assert (message.metadata["ce_tenant"], message.metadata["x-request-id"]) == ("acme", "7")


async def test_within_a_handler_a_reserved_name_is_an_output_refused_for_good() -> None:
    async def handle(_message: StringValue, _context: Context) -> Any:
        return Output(Int64Value(value=1), metadata={"ce_type": "a.B"})

    async with running(worker(handle, publication=TO_DONE)) as service:
        await put(service, "a")
        (dead_letter,) = service.dead_letters
    assert len(service.runs) == 1
    assert dead_letter.message.metadata[wire.PF_ERROR_CLASS] == "output"
    assert "'ce_type'" in dead_letter.message.metadata[wire.PF_ERROR_MESSAGE]


@pytest.mark.parametrize(
    "metadata", [{"pf_due": "1"}, {"bcc": "x"}, {"Nats-TTL": "1"}, {"a": 1}, {"a": "\ud800"}]
)
async def test_raw_messages_take_no_orders_from_data(metadata: Any) -> None:
    refused: list[str] = []

    async def handle(message: Message, context: Context) -> None:
        try:
            await context.publish(Message(id="1", topic="out", payload=b"", metadata=metadata))
        except PublishRefusedError as error:
            refused.append(str(error))

    def setup(service: Service) -> None:
        service.register_message_handler("raw", "in", handle)

    async with testing.run(config=config(), setup=setup) as tested:
        with pytest.raises(InvalidMessageError):
            await tested.service.publish(
                Message(id="1", topic="in", payload=b"", metadata=metadata)
            )
        await tested.service.publish(
            Message(id="2", topic="in", payload=b"", metadata={"ce_type": "a.B"})
        )
        await tested.settled()
        assert not [message for message in tested.messages if message.topic == "out"]
    assert len(refused) == 1


async def test_a_raw_copy_leaves_out_the_hop_state_that_came_with_it() -> None:
    async def copy(message: Message, context: Context) -> Message:
        return Message(id=message.id, topic="out", payload=b"x", metadata=message.metadata)

    def setup(service: Service) -> None:
        service.register_message_handler("raw", "in", copy)

    came = {"ce_type": "a.B", "content-type": "text/plain", "pf_x": "1", "CC": "q", "mine": "m"}
    async with testing.run(config=config(), setup=setup) as tested:
        await tested.service.transport.submit(
            [Message(id="1", topic="in", payload=b"", metadata=came)]
        )
        await tested.settled()
        (out,) = [message for message in tested.messages if message.topic == "out"]
    assert out.metadata == {"ce_type": "a.B", "content-type": "text/plain", "mine": "m"}


@pytest.mark.parametrize("profile", list(Profile))
async def test_the_metadata_of_an_input_may_be_passed_on_as_it_is(profile: Profile) -> None:
    async def handle(_message: StringValue, context: Context) -> Any:
        return Output(Int64Value(value=1), metadata=context.metadata)

    came = {"tenant": "acme", "causation_id": "older", "tracestate": "a=b", "ce_region": "eu",
            "event": "x", "correlation_id": "c"}  # fmt: skip
    async with running(
        worker(handle, publication=TO_DONE), profile=profile, namespace=""
    ) as service:
        (first,) = await put(service, "a", metadata=came)
        (out,) = [message for message in service.messages if message.topic == "done"]
    metadata = out.metadata
    assert metadata["ce_type"] == "google.protobuf.Int64Value"
    assert metadata.get("name", "google.protobuf.Int64Value") == "google.protobuf.Int64Value"
    assert metadata.get(wire.WATERMILL_ID, out.id) == out.id
    assert metadata[wire.CAUSATION_ID] == first
    assert {name: metadata[name] for name in ("tenant", "ce_region", "correlation_id")} == {
        "tenant": "acme", "ce_region": "eu", "correlation_id": "c",
    }  # fmt: skip


def context_of(metadata: dict[str, str], id: str = "1") -> Context:
    message = Message(id=id, topic="t", payload=b"", metadata=metadata)
    return Context(Delivery(message=message), message, 1, "h", "g", None)  # type: ignore[arg-type]  # encodes nothing


# Any code point, lone surrogates included.
TEXT = st.text(st.characters(codec=None), max_size=20)


@given(st.dictionaries(TEXT | st.sampled_from(sorted(BAD)), TEXT, max_size=8), TEXT)
def test_whatever_came_in_no_output_inherits_what_cannot_go_out(
    came: dict[str, str], id: str
) -> None:
    context = context_of({**came, "correlation_id": id, "traceparent": id, "baggage": id}, id)
    assert not [name for name in context.metadata if wire.reserved(name)]
    inherited = context.inherited("t")
    assert all(value.isprintable() for value in inherited.values())
    assert inherited[wire.CORRELATION_ID] == context.correlation_id
    assert context.inherited("t") == inherited, "a redone run inherits the same"
    assert context.output_id(0).isalnum()


def test_core_attributes_are_read_at_cloudevent() -> None:
    context = context_of(
        {"ce_type": "a.B", "ce_source": "/s", "ce_specversion": "1.0", "ce_subject": "7",
         "ce_time": "2026-01-02T03:04:05Z", "ce_dataschema": "urn:x", "ce_region": "eu",
         "content-type": "application/json", "mine": "m"}
    )  # fmt: skip
    event = context.cloudevent
    assert (event.id, event.type, event.source, event.subject) == ("1", "a.B", "/s", "7")
    assert event.time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert (event.spec_version, event.data_schema) == ("1.0", "urn:x")
    assert event.data_content_type == "application/json"
    assert event.extensions == {"region": "eu"}
    assert context.metadata == {"ce_region": "eu", "mine": "m"}
    assert "7" not in repr(event)


@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00", "x", ""]
)
def test_a_time_that_is_none_is_left_out(time: str) -> None:
    metadata = {"ce_type": "a", "ce_source": "/s", "ce_specversion": "1.0", "ce_time": time}
    assert context_of(metadata).cloudevent.time is None
    event = CloudEvent.of(Message(id="1", topic="t", payload=b"", metadata=metadata))
    assert event.time is None


async def test_an_event_that_was_received_may_be_published_again() -> None:
    async def handle(event: EventContext) -> None:
        await service.publish_event(event.event, topic="again")

    def setup(made: Service) -> None:
        made.consume_events("a.b", handle)

    async with testing.run(config=config(), setup=setup) as tested:
        service = tested.service
        await service.transport.submit(
            [
                Message(
                    id="1", topic="a.b", payload=b"{}",
                    metadata={"ce_type": "a.b", "ce_source": "/s", "ce_specversion": "1.0",
                              "pf_x": "1", "CC": "q", "mine": "m"},
                )
            ]
        )  # fmt: skip
        await tested.settled()
        (again,) = [message for message in tested.messages if message.topic == "again"]
    assert again.metadata["mine"] == "m"
    assert not {"pf_x", "CC"} & again.metadata.keys()


async def test_events_with_reserved_metadata_are_refused() -> None:
    async with connect("memory://") as publisher:
        with pytest.raises(InvalidMessageError, match="'pf_attempt'"):
            await publisher.publish_event(
                CloudEvent(type="a.b", source="/s", metadata={"pf_attempt": "1"})
            )


async def test_batches_keep_their_raw_outputs_when_one_is_refused() -> None:
    from protoflow.contract.spec import BatchPolicy

    async def handle(_batch: Any, context: Context) -> None:
        with pytest.raises(PublishRefusedError):
            await context.publish(
                Message(id="1", topic="out", payload=b""),
                Message(id="2", topic="out", payload=b"", metadata={"CC": "x"}),
            )
        await context.publish(Message(id="3", topic="out", payload=b""))

    async with running(worker(handle, batch=BatchPolicy(max_messages=1))) as service:
        await put(service, "a")
        out = [message.id for message in service.messages if message.topic == "out"]
    assert out == ["3"]


async def test_the_logger_of_a_run_keeps_the_extra_of_the_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(_message: Any, context: Context) -> None:
        context.logger.warning("billed", extra={"cents": 5, "attempt": "mine"})
        context.logger.warning("plain")

    async with running(worker(handle)) as service:
        await put(service, "a")
    billed, plain = (r for r in caplog.records if r.name == "protoflow.handler")
    assert (billed.cents, billed.attempt, billed.topic) == (5, "mine", "work")  # type: ignore[attr-defined]  # by `extra`
    assert plain.attempt == 1  # type: ignore[attr-defined]  # by `extra`
