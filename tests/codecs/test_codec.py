"""Payloads and envelopes: round trips, and no crash on any bytes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf import duration_pb2, empty_pb2, struct_pb2
from hypothesis import given
from hypothesis import strategies as st
from protoflow import wire
from protoflow.codecs.cloudevents import is_json, is_structured, unwrap, wrap
from protoflow.codecs.payload import CONTENT_TYPES, decode, encode
from protoflow.contract.spec import Encoding
from protoflow.errors import DecodeError
from protoflow.message import Message

Duration = duration_pb2.Duration
durations = st.builds(Duration, seconds=st.integers(0, 10**9), nanos=st.integers(0, 10**9 - 1))
names = st.from_regex(r"[a-z][a-z0-9]{0,10}", fullmatch=True)
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(durations, st.sampled_from(Encoding))
def test_what_is_encoded_can_be_decoded(message: Any, encoding: Encoding) -> None:
    payload = encode(message, encoding)
    assert decode(payload, CONTENT_TYPES[encoding], Duration) == message


@given(
    st.binary(max_size=64), st.sampled_from([None, wire.PROTOBUF, wire.JSON, "text/x+json", "a/b"])
)
def test_any_bytes_are_a_message_or_a_decode_error(
    payload: bytes, content_type: str | None
) -> None:
    try:
        decoded = decode(payload, content_type, struct_pb2.Struct)
    except DecodeError:
        return
    assert isinstance(decoded, struct_pb2.Struct)


@given(
    st.recursive(
        st.none() | st.integers() | plain, lambda x: st.lists(x) | st.dictionaries(plain, x)
    )
)
def test_any_json_is_a_message_or_a_decode_error(value: Any) -> None:
    try:
        decode(json.dumps(value).encode(), wire.JSON, Duration)
    except DecodeError:
        return


def test_json_that_nests_too_deeply_is_a_decode_error() -> None:
    payload = b'{"a":' * 5000 + b"1" + b"}" * 5000
    with pytest.raises(DecodeError):
        decode(payload, wire.JSON, struct_pb2.Struct)


def test_unknown_fields_of_json_are_ignored() -> None:
    assert decode(b'{"added": 1}', wire.JSON, empty_pb2.Empty) == empty_pb2.Empty()


@pytest.mark.parametrize(
    "content_type",
    ["application/x-protobuf", "application/vnd.google.protobuf", "application/octet-stream", "",
     "application/protobuf; messageType=x"],
)  # fmt: skip
def test_other_names_of_protobuf_are_read(content_type: str) -> None:
    message = Duration(seconds=3)
    assert decode(message.SerializeToString(), content_type, Duration) == message


def test_the_text_of_a_decode_error_shows_no_payload() -> None:
    with pytest.raises(DecodeError) as caught:
        decode(b"\xffsecret", wire.PROTOBUF, Duration)
    assert "secret" not in str(caught.value)


@given(
    plain.filter(bool),
    st.binary(max_size=50),
    st.dictionaries(names.map(lambda name: f"ce_{name}"), plain, max_size=3),
    st.dictionaries(names, plain, max_size=3),
    st.sampled_from([wire.PROTOBUF, "text/plain"]),
)
def test_wrapping_and_unwrapping_gives_the_message_again(
    id: str, payload: bytes, attributes: dict[str, str], rest: dict[str, str], content_type: str
) -> None:
    reserved = {"ce_id", "ce_data", "ce_datacontenttype", "ce_specversion"}
    metadata = {
        **{name: value for name, value in attributes.items() if name not in reserved},
        **rest,
        wire.CE_TYPE: "t", wire.CE_SOURCE: "/s", wire.CE_SPECVERSION: "1.0",
        wire.CONTENT_TYPE: content_type,
    }  # fmt: skip
    message = Message(id=id, topic="t", payload=payload, key=b"k", metadata=metadata)
    wrapped = wrap(message)
    assert is_structured(wrapped.metadata[wire.CONTENT_TYPE])
    assert unwrap(wrapped) == message


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | plain,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(plain, inner, max_size=3),
    )
)
def test_json_data_survives_an_envelope(data: Any) -> None:
    message = Message(
        id="1", topic="t", payload=json.dumps(data).encode(),
        metadata={wire.CE_TYPE: "t", wire.CE_SOURCE: "/s", wire.CONTENT_TYPE: wire.JSON},
    )  # fmt: skip
    wrapped = wrap(message)
    assert json.loads(wrapped.payload or b"")["data"] == data
    assert json.loads(unwrap(wrapped).payload or b"") == data


@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | plain,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "id",
                        "source",
                        "type",
                        "specversion",
                        "data",
                        "data_base64",
                        "datacontenttype",
                        "x",
                    ]
                ),
                inner,
                max_size=8,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_envelope_is_unwrapped_or_a_decode_error(payload: bytes) -> None:
    message = Message(
        id="1", topic="t", payload=payload, metadata={wire.CONTENT_TYPE: wire.CLOUDEVENTS_JSON}
    )
    try:
        unwrapped = unwrap(message)
    except DecodeError:
        return
    assert isinstance(unwrapped.id, str)
    assert all(isinstance(value, str) for value in unwrapped.metadata.values())
    assert unwrapped.payload is None or isinstance(unwrapped.payload, bytes)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("application/cloudevents+json", True),
        ("Application/CloudEvents+JSON; charset=utf-8", True),
        ("application/cloudevents", True),
        ("application/json", False),
        ("", False),
    ],
)
def test_structured_mode_is_reported_by_the_content_type(content_type: str, expected: bool) -> None:
    assert is_structured(content_type) is expected


def test_json_media_types() -> None:
    for yes in ("application/json", "text/json", "application/x+json; a=b", "APPLICATION/JSON"):
        assert is_json(yes)
    for no in ("application/jsonlines", "text/plain", ""):
        assert not is_json(no)
