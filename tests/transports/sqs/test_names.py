"""Names stay apart, and within what SNS and SQS take."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.errors import ConfigError
from protoflow.transports.sqs import names
from protoflow.transports.sqs.options import SqsOptions
from protoflow.transports.sqs.policies import allows, queue_policy

NAMES = names.Names("protoflow", fifo=False)
segment = st.text("aZ0-_", min_size=1, max_size=12)
dotted = st.lists(segment, min_size=1, max_size=3).map(".".join)
namespaced = st.lists(dotted, min_size=1, max_size=2).map("..".join)


def every(topic: str, group: str) -> list[str]:
    return [
        NAMES.group(topic, group),
        NAMES.retry(topic, group),
        NAMES.solo(topic, group),
        NAMES.dead_letters(topic),
        NAMES.dead_letters(f"{topic}..{group}..dead"),
    ]


@given(one=st.tuples(namespaced, namespaced), two=st.tuples(namespaced, namespaced))
def test_names_are_valid_and_of_one_thing_only(one: tuple[str, str], two: tuple[str, str]) -> None:
    first, second = every(*one), every(*two)
    for name in (*first, *second):
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,75}", name)
    assert len({*first}) == len(first)
    shared = {*first} & {*second}
    if one[0] != two[0]:
        assert shared <= {NAMES.dead_letters(two[0]), NAMES.dead_letters(one[0])}
    elif one[1] != two[1]:
        assert shared == {NAMES.dead_letters(one[0])}


def test_golden_names() -> None:
    assert NAMES.topic("orders.placed") == "protoflow--orders-placed"
    assert NAMES.group("orders.placed", "billing") == "protoflow--orders-placed----billing"
    assert NAMES.retry("a_b", "c-d") == "protoflow--a__b----c_-d----retry"
    assert NAMES.dead_letters("t..g..dead") == "protoflow--t--g--dead"
    assert NAMES.group("x" * 90, "g") == (
        "protoflow--" + "x" * 45 + "---" + NAMES.group("x" * 90, "g")[-16:]
    )
    fifo = names.Names("protoflow", fifo=True)
    assert fifo.topic("t") == "protoflow--t.fifo"
    assert len(fifo.group("x" * 90, "g")) <= 80
    assert fifo.retry("t", "g") == "protoflow--t----g----retry"


@pytest.mark.parametrize(
    "options",
    [
        {"prefix": "a.b"},
        {"fifo": "yes"},
        {"wait_time": 21},
        {"max_message_bytes": 1024 * 1024 + 1},
        {"retention": 10},
        {"fifo": "topic", "parallel_sends": 2},
        {"request_timeout": 0},
    ],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        SqsOptions(**options)  # type: ignore[arg-type]


def test_a_policy_names_its_topic_and_not_one_that_begins_in_the_same_way() -> None:
    topic = "arn:aws:sns:eu-central-1:1:protoflow--orders"
    policy = queue_policy("arn:aws:sqs:eu-central-1:1:q", f"{topic}-placed")
    assert allows(policy, f"{topic}-placed")
    assert not allows(policy, topic)
