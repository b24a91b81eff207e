"""Requests and messages: what is sent arrives, and what is malformed is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from hypothesis import given
from hypothesis import strategies as st
from protoflow import wire
from protoflow.codecs.cloudevents import is_structured, unwrap
from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.transports.http.codec import BATCH, decode, encode
from protoflow.transports.http.options import Mode
from protoflow.transports.http.requests import Refusal

EVENT = {wire.CE_TYPE: "shop.v1.OrderPlaced", wire.CE_SOURCE: "/shop"}
MEGABYTE = 1024 * 1024

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.from_regex(r"[a-z][a-z0-9_-]{0,10}", fullmatch=True).filter(
    lambda name: not name.startswith(("ce-", "ce_", "pf_")) and name != wire.MESSAGE_ID
)
messages = st.builds(
    lambda id, payload, key, metadata, event: Message(  # noqa: A006  the name of the field
        id=id, topic="orders", payload=payload, key=key or None,
        metadata={**metadata, **(EVENT if event else {})},
    ),
    id=text.filter(bool),
    payload=st.none() | st.binary(max_size=50),
    key=st.none() | st.binary(max_size=10),
    metadata=st.dictionaries(names, text, max_size=4),
    event=st.booleans(),
)  # fmt: skip


@given(message=messages, mode=st.sampled_from(Mode))
def test_a_message_arrives_as_it_was_sent(message: Message, mode: Mode) -> None:
    encoded = encode(message, mode, MEGABYTE)
    for value in encoded.headers.values():
        assert value.isascii()
        assert value.isprintable()
    headers = {name.lower(): value for name, value in encoded.headers.items()}
    (got,) = decode("orders", headers, encoded.body)
    assert (got.id, got.key) == (message.id, message.key)
    if is_structured(got.metadata.get(wire.CONTENT_TYPE, "")):
        got = unwrap(got)  # as the runtime does
    assert got.payload == message.payload
    metadata = dict(got.metadata)
    assert {name: metadata.get(name) for name in message.metadata} == message.metadata


@given(message=messages.filter(lambda message: wire.CE_TYPE in message.metadata))
def test_another_reader_of_cloudevents_reads_it(message: Message) -> None:
    message.metadata = {**EVENT, wire.CONTENT_TYPE: wire.PROTOBUF, "ce_subject": "50 % ü"}
    encoded = encode(message, Mode.BINARY, MEGABYTE)
    event = from_http_event(HTTPMessage(headers=dict(encoded.headers), body=encoded.body))
    assert event.get_id() == message.id
    assert event.get_type() == EVENT[wire.CE_TYPE]
    assert event.get_subject() == "50 % ü"


def status_of(headers: dict[str, str], body: bytes) -> int:
    """The answer to a request: 200 if it can be read."""
    try:
        decode("orders", headers, body)
    except Refusal as refusal:
        return refusal.answer.status
    return 200


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
events = st.fixed_dictionaries(
    {
        "id": text.filter(bool), "source": st.just("/s"), "type": st.just("t"),
        "specversion": st.just("1.0"),
    },
    optional={"data": json_values, "subject": text, "extension": st.integers(0, 9)},
)  # fmt: skip


@given(batch=st.lists(events, max_size=6))
def test_a_batch_is_its_events(batch: list[dict[str, Any]]) -> None:
    got = decode("orders", {"content-type": f"{BATCH}; charset=utf-8"}, json.dumps(batch).encode())
    assert [message.id for message in got] == [event["id"] for event in batch]
    for message, event in zip(got, batch, strict=True):
        alone = {"content-type": wire.CLOUDEVENTS_JSON}
        assert [message] == decode("orders", alone, json.dumps(event).encode())
        if "data" in event:
            assert json.loads(unwrap(message).payload or b"") == event["data"]


@given(body=st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_whatever_a_batch_is_it_is_read_or_refused(body: bytes) -> None:
    assert status_of({"content-type": BATCH}, body) in (200, 400)


@given(batch=st.lists(events, min_size=1, max_size=4), at=st.integers(0, 3), bad=json_values)
def test_one_bad_event_refuses_its_batch(batch: list[dict[str, Any]], at: int, bad: object) -> None:
    place = at % (len(batch) + 1)
    mixed = [*batch[:place], bad, *batch[place:]]
    with pytest.raises(Refusal, match=f"item {place} of the batch"):
        decode("orders", {"content-type": BATCH}, json.dumps(mixed).encode())


@given(
    headers=st.dictionaries(
        st.sampled_from(
            ["content-type", "ce-id", "ce-type", "ce-source", "ce-specversion", "webhook-id",
             "message-metadata", "message-uuid", "ce-partitionkey", "ce-datacontenttype"]
        ),
        st.text(max_size=20) | st.sampled_from([BATCH, wire.CLOUDEVENTS_JSON, "1.0", "{}", "%ff"]),
    ),
    body=st.binary(max_size=30),
)  # fmt: skip
def test_no_headers_of_a_stranger_raise(headers: dict[str, str], body: bytes) -> None:
    assert status_of(headers, body) in (200, 400, 415)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"ce-id": "1", "ce-type": "t", "ce-specversion": "1.0"}, 400),
        ({"ce-id": "1", "ce-type": "t", "ce-source": "/s", "ce-specversion": "0.3"}, 400),
        ({"content-type": "application/cloudevents+xml"}, 415),
        ({"content-type": "application/cloudevents-batch+protobuf"}, 415),
        ({"message-metadata": "[]"}, 400),
        ({"message-metadata": '{"a": 1}'}, 400),
        ({"message-metadata": '{"a": "\\ud800"}'}, 400),
    ],
)
def test_malformed_requests_are_refused(headers: dict[str, str], status: int) -> None:
    with pytest.raises(Refusal) as caught:
        decode("orders", headers, b"x")
    assert caught.value.answer.status == status


def test_headers_of_the_request_are_no_metadata_unless_they_are_wanted() -> None:
    headers = {"authorization": "Bearer s", "cookie": "c", "x-event": "push", "traceparent": "00"}
    (message,) = decode("orders", headers, b"{}", ("X-Event",))
    assert message.metadata == {"x-event": "push", "traceparent": "00"}


@pytest.mark.parametrize("message", [
    Message(id="1", topic="t", payload=bytes(11)),
    Message(id="1", topic="t", payload=b"{", metadata={**EVENT, "content-type": wire.JSON}),
    Message(id="1", topic="t", payload=b"x", metadata={"large": "x" * 40_000}),
])  # fmt: skip
def test_what_cannot_be_sent_is_refused(message: Message) -> None:
    with pytest.raises(PublishRefusedError):
        encode(message, Mode.STRUCTURED, 10)
