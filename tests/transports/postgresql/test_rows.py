"""What a row of the log holds, if others wrote it."""

from __future__ import annotations

import pytest
from protoflow.transports.postgresql.rows import read_message


def test_a_head_is_a_pair_of_id_and_metadata() -> None:
    message, problem = read_message("orders", 7, b"k", '["m1",{"a":"b"}]', b"x")
    assert (message.id, message.metadata, message.key, problem) == ("m1", {"a": "b"}, b"k", None)


@pytest.mark.parametrize(
    "head",
    [
        "", "x", "[", '["m1"]', '["m1",{}] ', '["m1",{}],1', '["m1",{"a":1}]', '[1,{}]',
        '["m1",[]]', '{"a":1,"b":2}', "1", "null", "[" * 100_000,
    ],
)  # fmt: skip
def test_a_damaged_head_keeps_payload_and_key(head: str) -> None:
    message, problem = read_message("orders", 7, b"k", head, b"x")
    assert problem is not None
    assert (message.id, message.payload, message.key, message.metadata) == ("7", b"x", b"k", {})
