"""Messages as text with ten attributes: what fits, what foreign programs see and send."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.transports.sqs.records import decode, encode

LIMIT = 262_144
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def received(message: Message) -> dict[str, Any]:
    encoded = encode(message, LIMIT)
    return {
        "MessageId": "m-1", "Body": encoded.body, "MessageAttributes": dict(encoded.attributes)
    }  # fmt: skip


@given(
    payload=st.none() | st.binary(max_size=50) | texts.map(str.encode),
    key=st.none() | st.binary(max_size=20),
    metadata=st.dictionaries(
        texts.filter(bool).map("x".__add__) | st.sampled_from(["ce_type", "content-type"]), texts
    ),
)
def test_a_message_comes_as_it_was_sent_in_ten_attributes_at_most(
    payload: bytes | None, key: bytes | None, metadata: dict[str, str]
) -> None:
    sent = Message(id="i-1", topic="t", payload=payload, key=key, metadata=metadata)
    raw = received(sent)
    assert len(raw["MessageAttributes"]) <= 10
    assert raw["Body"]
    got, unreadable, _ = decode("t", raw)
    assert unreadable is None
    assert (got.id, got.payload, got.key) == ("i-1", payload, key)
    assert {name: got.metadata[name] for name in metadata} == metadata


def test_a_dead_letter_of_an_event_has_few_attributes_and_keeps_everything() -> None:
    """Eleven of them, and SNS would drop the message without a word."""
    names = [f"ce_{name}" for name in ("type", "source", "subject", "time", "dataschema")]
    names += [f"pf_{number}" for number in range(20)] + [f"user{number}" for number in range(9)]
    names += ["correlation_id", "traceparent", "tracestate", "baggage", "content-type"]
    metadata = dict.fromkeys(names, "v")
    sent = Message(id="i", topic="t", payload=b"\0", key=b"k", metadata=metadata)
    raw = received(sent)
    attributes = raw["MessageAttributes"]
    assert len(attributes) == 10
    event = json.loads(attributes["cloudevents"]["StringValue"])
    assert event == {"id": "i", "specversion": "1.0"} | dict.fromkeys(
        ("type", "source", "subject", "time", "dataschema"), "v"
    )
    assert attributes["traceparent"]["StringValue"] == "v"
    assert not any(name.startswith("pf_") for name in attributes), "hop state is no attribute"
    got = decode("t", raw).message.metadata
    assert {name: got[name] for name in names} == metadata


def test_text_is_sent_as_it_is_and_the_rest_in_base64() -> None:
    text = encode(Message(id="i", topic="t", payload='{"a": "ü"}'.encode()), LIMIT)
    assert text.body == '{"a": "ü"}'
    assert "content-transfer-encoding" not in text.attributes
    binary = encode(Message(id="i", topic="t", payload=b"\x08\x96\x01"), LIMIT)
    assert base64.b64decode(binary.body) == b"\x08\x96\x01"
    assert binary.attributes["content-transfer-encoding"]["StringValue"] == "base64"


@pytest.mark.parametrize("payload", [b"x" * (LIMIT + 1), "text", 5])
def test_what_cannot_be_sent_is_refused(payload: Any) -> None:
    with pytest.raises(PublishRefusedError, match="message 'i' cannot be stored"):
        encode(Message(id="i", topic="t", payload=payload), LIMIT)


def attribute(value: str) -> dict[str, str]:
    return {"DataType": "String", "StringValue": value}


def test_a_foreign_message_is_read() -> None:
    raw = {
        "MessageId": "m-7",
        "Body": "plain",
        "MessageAttributes": {
            "color": attribute("red"),
            "count": {"DataType": "Number", "StringValue": "3"},
            "raw": {"DataType": "Binary", "BinaryValue": b"\xff"},
        },
    }
    message, unreadable, size = decode("t", raw)
    assert (message.id, message.payload, unreadable) == ("m-7", b"plain", None)
    assert message.metadata == {"color": "red", "count": "3", "raw": "/w=="}
    assert size > 5
    event = {"id": "e-1", "type": "shop.v1.Order", "source": "/x", "sequence": 5}
    raw["MessageAttributes"] = {"cloudevents": attribute(json.dumps(event))}
    message = decode("t", raw).message
    assert (message.id, message.metadata["ce_sequence"]) == ("e-1", "5")
    raw["MessageAttributes"] = {"_watermill_message_uuid": attribute("w-1")}
    assert decode("t", raw).message.id == "w-1"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("protoflow", "{"),
        ("protoflow", "[1]"),
        ("protoflow", "[" * 5000),
        ("protoflow", '{"key": "?"}'),
        ("cloudevents", "nothing"),
        ("content-transfer-encoding", "base64"),
    ],
)
def test_a_damaged_message_is_unreadable_and_no_error(name: str, value: str) -> None:
    raw = {"MessageId": "m", "Body": "no base64!", "MessageAttributes": {name: attribute(value)}}
    message, unreadable, _ = decode("t", raw)
    assert unreadable
    assert message.payload == b"no base64!"


@pytest.mark.parametrize("own", [{"metadata": 5}, {"key": 5}, {"body": 7}, {"metadata": {"a": 1}}])
def test_odd_values_of_a_stranger_are_ignored_or_made_text(own: dict[str, Any]) -> None:
    raw = {
        "MessageId": "m",
        "Body": "x",
        "MessageAttributes": {"protoflow": attribute(json.dumps(own))},
    }
    message, unreadable, _ = decode("t", raw)
    assert (message.payload, message.key, unreadable) == (b"x", None, None)
    assert message.metadata == ({"a": "1"} if own == {"metadata": {"a": 1}} else {})
