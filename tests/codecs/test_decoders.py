"""Whatever comes in, a decoder returns a value or raises DecodeError, and nothing else; and no
error of one says anything of what it read."""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from google.protobuf import (
    any_pb2,
    descriptor_pb2,
    duration_pb2,
    field_mask_pb2,
    struct_pb2,
    timestamp_pb2,
    wrappers_pb2,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow import Context, Service, testing, wire
from protoflow.codecs import bindings
from protoflow.codecs.cloudevents import is_structured, unwrap, without_content_type, wrap
from protoflow.codecs.json_codec import json_decoder
from protoflow.codecs.payload import decode
from protoflow.codecs.threaded import LARGE
from protoflow.errors import DecodeError
from protoflow.events import CloudEvent
from protoflow.message import Message

from tests.middleware.harness import config

#: `make fuzz` raises it to millions.
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "100"))
fuzzed = settings(max_examples=EXAMPLES, deadline=None)

CLASSES = (
    any_pb2.Any, struct_pb2.Struct, struct_pb2.Value, duration_pb2.Duration,
    timestamp_pb2.Timestamp, field_mask_pb2.FieldMask, wrappers_pb2.StringValue,
    wrappers_pb2.Int64Value, wrappers_pb2.BytesValue, wrappers_pb2.DoubleValue,
    descriptor_pb2.FileDescriptorProto, descriptor_pb2.FieldOptions,
)  # fmt: skip
CONTENT_TYPES = (
    None, "", wire.PROTOBUF, wire.JSON, "application/x-protobuf; a=b", "text/json", "a/b+json",
    "nonsense", "\x00", "application/cloudevents+json",
)  # fmt: skip
# Any code point, lone surrogates included, as `json` makes them of an escape.
TEXT = st.text(st.characters(codec=None), max_size=12)
NAMES = st.sampled_from(
    ["value", "fields", "@type", "typeUrl", "type_url", "seconds", "nanos", "name", "options",
     "kind", "a"]
) | TEXT  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT
    | st.sampled_from(["type.googleapis.com/google.protobuf.Struct", "1.5s", "NaN", "-1e400"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


def came_of(read: Callable[[], Any]) -> Any:
    """What a decoder returns; None for its error, which must not bring another along."""
    try:
        return read()
    except DecodeError as error:
        cause = error.__cause__
    assert cause is None
    return None


def assert_no_surrogates(value: object) -> None:
    json.dumps(value, ensure_ascii=False, default=str).encode()


@fuzzed
@given(
    st.binary(max_size=80) | JSON.map(encoded), st.sampled_from(CLASSES),
    st.sampled_from(CONTENT_TYPES),
)  # fmt: skip
def test_a_payload_is_a_message_or_a_decode_error(
    payload: bytes, message_class: Any, content_type: str | None
) -> None:
    message = came_of(lambda: decode(payload, content_type, message_class))
    if message is not None:
        assert isinstance(message, message_class)
        message.SerializePartialToString()


ATTRIBUTES = st.sampled_from(
    ["id", "type", "source", "specversion", "subject", "time", "data", "data_base64",
     "datacontenttype", "dataschema", "pf_attempt", "pf_correlation_id", "ext", "Ä"]
) | TEXT  # fmt: skip
ENVELOPES = st.builds(
    lambda base, more: {**base, **more},
    st.sampled_from(
        [{}, {"id": "1", "type": "a.B", "source": "/s", "specversion": "1.0"},
         {"id": "1", "type": "a.B", "source": "/s", "specversion": "1.0", "data": {"a": [1]}}]
    ),
    st.dictionaries(ATTRIBUTES, JSON, max_size=5),
)  # fmt: skip
METADATA = st.dictionaries(
    st.sampled_from(["ce_type", "ce_specversion", "ce_datacontenttype", "ce_time", "ce_source",
                     "content-type", "pf_attempt", "correlation_id"]) | TEXT,
    TEXT | st.sampled_from(["a.B", "1.0", wire.JSON, wire.CLOUDEVENTS_JSON,
                            "application/cloudevents+avro", "0001-01-01T00:00:00+23:59"]),
    max_size=6,
)  # fmt: skip


@fuzzed
@given(ENVELOPES.map(encoded) | st.binary(max_size=40), METADATA)
def test_an_envelope_is_a_message_or_a_decode_error(
    payload: bytes, metadata: dict[str, str]
) -> None:
    message = Message(id="m", topic="t", payload=payload, metadata=metadata)
    for read in (unwrap, without_content_type):
        opened = came_of(partial(read, message))
        if opened is None:
            continue
        added = {n: v for n, v in opened.metadata.items() if metadata.get(n) != v}
        assert_no_surrogates(added)
        assert all(type(value) is str for value in opened.metadata.values())
        came_of(partial(CloudEvent.of, opened))


@fuzzed
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["ce_type", "ce-type", "CE-ID", "cloudEvents:time", "cloudEvents_id",
                             "content-type", "Content-Type", "ce-datacontenttype", "ce_",
                             "_watermill_message_uuid", "message_id", "ce_id"]) | TEXT,
            TEXT | st.sampled_from(["%", "%zz", "%ff", '"', '"\\', "%ED%A0%80"]),
        ),
        max_size=6,
    )
)  # fmt: skip
def test_any_headers_are_read_and_written_again(headers: list[tuple[str, str]]) -> None:
    for binding in (bindings.KAFKA, bindings.AMQP, bindings.NATS, bindings.HTTP):
        id, metadata = binding.read(headers)
        binding.headers(id or "x", metadata)


@dataclass
class Order:
    id: str
    lines: list[int]

    def __post_init__(self) -> None:
        if self.id == "raises":
            raise RuntimeError("secret")


@fuzzed
@given(
    st.binary(max_size=40)
    | JSON.map(encoded)
    | st.fixed_dictionaries({"id": TEXT | st.just("raises"), "lines": JSON}).map(encoded),
    st.sampled_from([Any, dict, list, object, Order]),
)
def test_json_is_a_value_or_a_decode_error(payload: bytes, kind: Any) -> None:
    value = came_of(lambda: json_decoder(kind)(payload))
    if value is None:
        return
    assert kind in (Any, object) or isinstance(value, kind)
    if kind is not Order:
        assert_no_surrogates(value)


DEEP = b"[" * 900 + b"]" * 900
SPOILT: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "deep data": (
        lambda payload: unwrap(structured(payload)),
        b'{"id":"1","type":"t","source":"/s","specversion":"1.0","data":' + DEEP + b"}",
    ),
    "surrogate id": (
        lambda payload: unwrap(structured(payload)),
        b'{"id":"\\ud800","type":"t","source":"/s","specversion":"1.0"}',
    ),
    "surrogate name": (
        lambda payload: unwrap(structured(payload)),
        b'{"id":"1","type":"t","source":"/s","specversion":"1.0","\\udfff":"x"}',
    ),
    "surrogate bytes": (
        lambda payload: unwrap(structured(payload)),
        b'{"id":"\xed\xa0\x80","type":"t","source":"/s","specversion":"1.0"}',
    ),
    "surrogate in JSON": (json_decoder(dict), b'{"a": "\\udfff"}'),
    "surrogate in protojson": (
        lambda payload: decode(payload, wire.JSON, struct_pb2.Struct), b'{"a": "\\udfff"}',
    ),
    "a type that is no text": (
        lambda payload: decode(payload, wire.JSON, any_pb2.Any), b'{"@type": 5}',
    ),
    "a dataclass that raises": (json_decoder(Order), b'{"id": "raises", "lines": []}'),
    "another kind": (json_decoder(dict), b"[]"),
    "a number of 5000 digits": (json_decoder(dict), b'{"a": ' + b"9" * 5000 + b"}"),
}  # fmt: skip


def structured(payload: bytes | None) -> Message:
    return Message(
        id="1", topic="t", payload=payload, metadata={"content-type": wire.CLOUDEVENTS_JSON}
    )


@pytest.mark.parametrize("case", sorted(SPOILT))
def test_what_is_spoilt_is_a_decode_error(case: str) -> None:
    read, payload = SPOILT[case]
    try:
        read(payload)
    except DecodeError:
        return
    assert case == "deep data", "it depends on the stack that is left"


def test_a_tombstone_beside_the_type_of_an_envelope_stays_one() -> None:
    assert unwrap(structured(None)).payload is None
    assert is_structured("Application/CloudEvents+json")


@pytest.mark.parametrize(
    ("payload", "content_type"),
    [
        (b'{"seconds": "LEAK"}', wire.JSON),
        (b'{"LEAK', wire.JSON),
        (b'{"seconds": 1, "seconds": "LEAK"}', wire.JSON),
        (b"\xffLEAK", wire.PROTOBUF),
        (b"\xffLEAK", None),
    ],
)
def test_an_error_of_a_decoder_says_nothing_of_the_payload(
    payload: bytes, content_type: str | None
) -> None:
    with pytest.raises(DecodeError) as caught:
        decode(payload, content_type, timestamp_pb2.Timestamp)
    assert "LEAK" not in "".join(traceback.format_exception(caught.value))


def test_json_errors_say_nothing_of_the_payload_either() -> None:
    for payload in (b'{"id": "raises", "lines": []}', b'{"LEAK', b'{"LEAK": 1}'):
        with pytest.raises(DecodeError) as caught:
            json_decoder(Order)(payload)
        text = "".join(traceback.format_exception(caught.value))
        assert "LEAK" not in text
        assert "secret" not in text


async def test_an_undecodable_message_is_not_quoted_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def handle(_message: Any, _context: Context) -> None:
        raise AssertionError

    def setup(service: Service) -> None:
        service.register_proto_handler("h", "in", duration_pb2.Duration, handle)

    caplog.set_level(logging.DEBUG)
    metadata = {"ce_type": "google.protobuf.Duration", "content-type": wire.JSON}
    async with testing.run(config=config(), setup=setup) as tested:
        await tested.service.publish(
            Message(id="1", topic="in", payload=b'"LEAK-4111"', metadata=metadata)
        )
        await tested.settled()
        (dead_letter,) = tested.dead_letters
    assert "LEAK" not in caplog.text
    assert "LEAK" not in dead_letter.message.metadata[wire.PF_ERROR_MESSAGE]


@pytest.mark.parametrize("large", [True, False])
async def test_a_large_payload_is_decoded_in_a_thread(
    large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    payload = json.dumps({"a": "x" * (LARGE if large else 10)}).encode()
    threads: list[bool] = []
    seen: list[int] = []

    def decoding(*given: Any) -> Any:
        threads.append(threading.current_thread() is threading.main_thread())
        return decode(*given)

    async def handle(message: Any, _context: Context) -> None:
        seen.append(len(message.fields))

    def setup(service: Service) -> None:
        service.register_proto_handler("h", "in", struct_pb2.Struct, handle)

    monkeypatch.setattr("protoflow.scheduling.invoke.decode", decoding)
    metadata = {"ce_type": "google.protobuf.Struct", "content-type": wire.JSON}
    async with testing.run(config=config(), setup=setup) as tested:
        await tested.service.publish(
            Message(id="1", topic="in", payload=payload, metadata=metadata)
        )
        await tested.settled()
    assert seen == [1]
    assert threads == [not large]


def test_what_is_wrapped_can_be_unwrapped() -> None:
    payload = base64.b64encode(b"x")
    message = Message(id="1", topic="t", payload=payload, metadata={
        "ce_type": "a", "ce_source": "/s", "content-type": "text/plain",
    })  # fmt: skip
    assert unwrap(wrap(message)).payload == payload
