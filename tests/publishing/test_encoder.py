"""The encoder: attributes, keys, ids, topics and what outputs inherit."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value, StringValue
from hypothesis import given
from hypothesis import strategies as st
from protoflow import wire
from protoflow.config.settings import Config
from protoflow.context import Context
from protoflow.contract.spec import Encoding, MessageSpec, PublicationSpec
from protoflow.errors import ConfigError, InvalidMessageError, PublishRefusedError
from protoflow.message import Delivery, Message
from protoflow.output import Output
from protoflow.publishing.encoder import Encoder


def publication(message_class: Any = StringValue, topic: str = "orders", **spec: Any) -> Any:
    contract = MessageSpec(
        type=message_class.DESCRIPTOR.full_name, message_class=message_class, **spec
    )
    return PublicationSpec(topic=topic, message=contract)


def encoder(**settings: Any) -> Encoder:
    return Encoder(Config(environ={}, **settings), lambda: 1767225600.5)


def context_of(metadata: dict[str, str] | None = None, id: str = "in") -> Context:
    message = Message(id=id, topic="t", payload=b"", metadata=metadata or {})
    made = encoder()
    return Context(Delivery(message=message), message, 1, "a.B.C", "billing", made)


def test_a_message_has_the_attributes_of_its_contract() -> None:
    message = encoder(source="/shop")(publication(), Output(StringValue(value="a")))
    assert message.metadata == {
        wire.CE_SPECVERSION: "1.0",
        wire.CE_TYPE: "google.protobuf.StringValue",
        wire.CE_SOURCE: "/shop",
        wire.CE_TIME: "2026-01-01T00:00:00.500Z",
        wire.CONTENT_TYPE: wire.PROTOBUF,
    }
    assert StringValue.FromString(message.payload or b"").value == "a"
    assert message.deduplication_id == f"{message.id}:orders"


@pytest.mark.parametrize(
    ("message", "key"),
    [
        (StringValue(value="é"), "é".encode()),
        (StringValue(), None),
        (BytesValue(value=b"\x00\xff"), b"\x00\xff"),
        (BytesValue(), None),
        (Int64Value(value=-7), b"-7"),
    ],
)
def test_a_key_field_is_text_bytes_or_decimal_and_empty_is_none(
    message: Any, key: bytes | None
) -> None:
    made = encoder()(publication(type(message), partition_key="value"), Output(message))
    assert made.key == key


def test_an_output_says_more_than_its_contract() -> None:
    output = Output(
        StringValue(), key="k", topic="{shop}.other", delay=timedelta(seconds=2), id="mine",
        metadata={"tenant": "7"},
    )  # fmt: skip
    made = encoder(namespace="prod", variables={"shop": "acme"})(publication(), output)
    assert (made.topic, made.key, made.delay, made.id) == ("prod..acme.other", b"k", 2.0, "mine")
    assert made.metadata["tenant"] == "7"


def test_a_variable_without_a_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"variables\.shop"):
        encoder()(publication(topic="{shop}.orders"), Output(StringValue()))


def test_a_message_of_another_type_is_an_error() -> None:
    with pytest.raises(TypeError, match="StringValue is expected, not Int64Value"):
        encoder()(publication(), Output(Int64Value()))


@pytest.mark.parametrize(
    "flawed",
    [
        Output(StringValue(), key="\ud800"),
        Output(StringValue(), id="a\nb"),
        Output(StringValue(), metadata={"pf_attempt": "1"}),
    ],
)
def test_what_cannot_be_sent_is_refused_and_within_a_run_for_good(flawed: Any) -> None:
    with pytest.raises(InvalidMessageError):
        encoder()(publication(), flawed)
    with pytest.raises(PublishRefusedError):
        encoder()(publication(), flawed, context_of())


def test_an_output_inherits_correlation_causation_and_trace() -> None:
    context = context_of({wire.CORRELATION_ID: "c", wire.TRACEPARENT: "00-aa-bb-01"})
    made = encoder()(publication(), Output(StringValue()), context)
    assert made.metadata[wire.CORRELATION_ID] == "c"
    assert made.metadata[wire.CAUSATION_ID] == "in"
    assert made.metadata[wire.TRACEPARENT] == "00-aa-bb-01"
    assert context.inherited("orders").items() <= made.metadata.items()


def test_metadata_passed_on_from_the_input_does_not_undo_what_an_output_inherits() -> None:
    context = context_of({wire.CAUSATION_ID: "grandparent", "tenant": "7"})
    output = Output(StringValue(), metadata=dict(context.message.metadata))
    made = encoder()(publication(), output, context)
    assert made.metadata[wire.CAUSATION_ID] == "in"
    assert made.metadata["tenant"] == "7"


@given(st.integers(1, 5))
def test_ids_of_outputs_are_the_same_in_every_run_and_differ_within_one(count: int) -> None:
    runs = []
    for _ in range(2):
        context, made = context_of(), encoder()
        outputs = [Output(StringValue()) for _ in range(count)]
        runs.append([made(publication(), output, context).id for output in outputs])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == count


def test_the_profile_and_the_structured_mode_of_the_config_hold() -> None:
    watermill = encoder(profile="watermill")(publication(), Output(StringValue()))
    assert watermill.metadata[wire.WATERMILL_ID] == watermill.id
    structured = encoder(structured=True, encoding=Encoding.JSON)(
        publication(), Output(StringValue(value="a"))
    )
    assert structured.metadata[wire.CONTENT_TYPE].startswith("application/cloudevents+json")
    assert b'"data"' in (structured.payload or b"")
