"""Frames, byte by byte, against the library of Confluent."""

from __future__ import annotations

import io
from uuid import UUID

import pytest
from confluent_kafka.schema_registry.serde import SchemaId
from hypothesis import given
from hypothesis import strategies as st
from protoflow.codecs.framing import Frame, is_framed, read, without_frame
from protoflow.errors import DecodeError

GUID = UUID("89791762-2336-4186-9674-299b90a802e2")
paths = st.lists(st.integers(0, 2**20), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ((0,), "000000000100"),
        ((1,), "00000000010202"),
        ((0, 1), "0000000001040002"),
        ((2, 0), "0000000001040400"),
        ((0, 0), "0000000001040000"),
    ],
)
def test_frames_have_the_bytes_of_confluents_library(path: tuple[int, ...], written: str) -> None:
    assert bytes(Frame(1, path)).hex() == written


@given(st.one_of(st.integers(0, 2**32 - 1), st.uuids()), paths, st.binary(max_size=9))
def test_both_write_the_same_and_read_each_other(
    schema: int | UUID, path: list[int], payload: bytes
) -> None:
    frame = Frame(schema, tuple(path))
    theirs = SchemaId("PROTOBUF", message_indexes=path)
    if isinstance(schema, UUID):
        theirs.guid = schema
        written = theirs.guid_to_bytes()
    else:
        theirs.id = schema
        written = theirs.id_to_bytes()
    assert bytes(frame) == written
    assert is_framed(written)
    assert read(written + payload) == (frame, len(written))
    assert without_frame(written + payload) == payload
    again = SchemaId("PROTOBUF")
    assert again.from_bytes(io.BytesIO(bytes(frame) + payload)).read() == payload
    assert (again.guid or again.id, again.message_indexes) == (schema, path)


#: Bytes of any kind, and bytes that begin like a frame.
frame_like = st.tuples(st.sampled_from([b"\0", b"\1"]), st.binary(max_size=40)).map(b"".join)


@given(st.binary(max_size=40) | frame_like)
def test_bytes_are_refused_or_read_as_one_frame(data: bytes) -> None:
    try:
        frame, length = read(data)
    except DecodeError:  # no other error
        return
    assert is_framed(data)
    assert 0 < length <= len(data)
    assert read(bytes(frame) + data[length:]) == (frame, len(bytes(frame)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\0\1",  # no path
        b"\1" + bytes(16),  # no path
        b"\0\0\0\0\1\4\2",  # one index of two
        b"\0\0\0\0\1\2\1",  # the index is -1
        b"\0\0\0\0\1\1",  # the number of indexes is -1
        b"\0\0\0\0\1" + b"\xff" * 9,  # a number without an end
        b"\2\0\0\0\1\0",  # another first byte
    ],
)
def test_broken_frames_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="frame of a schema registry"):
        read(data)


def test_payloads_without_a_frame_stay_as_they_are() -> None:
    for payload in (b"", b"\x0a\x017", b'{"a": 1}'):
        assert not is_framed(payload)
        assert without_frame(payload) == payload


def test_people_read_which_schema_a_frame_names() -> None:
    assert str(Frame(7, (0, 1))) == "schema id 7, message 0.1"
    assert str(Frame(GUID, (2,))) == f"schema GUID {GUID}, message 2"
