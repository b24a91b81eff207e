"""Names at NATS: legal, injective, and the same for ever."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.contract import names as naming
from protoflow.transports.nats.names import JetStreamNames, tokens

#: What JetStream takes as one token of a subject and as a name, as far as we use it.
_SUBJECT = re.compile(r"[^\s.*>]+(\.[^\s.*>]+)*")
_ASSET = re.compile(r"[A-Za-z0-9_=~-]{1,255}")

_segments = st.text(alphabet="ab_-", min_size=1, max_size=3)
_topics = st.lists(_segments, min_size=1, max_size=3).map(".".join)
_derived = st.lists(_topics, min_size=1, max_size=3).map(lambda parts: naming.join(*parts))
_any_topic = st.one_of(_topics, _derived, _derived.map(lambda name: naming.fit(name * 40, 90)))


@pytest.mark.parametrize(
    ("topic", "stream", "subject"),
    [
        ("orders.placed", "protoflow-topic-orders_placed", "protoflow.orders.placed"),
        ("orders_placed", "protoflow-topic-orders=placed", "protoflow.orders_placed"),
        (
            "eu..orders..billing..dead",
            "protoflow-topic-eu__orders__billing__dead",
            "protoflow.eu.=.orders.=.billing.=.dead",
        ),
        ("a" * 9 + "...hash", "protoflow-topic-aaaaaaaaa___hash", "protoflow.aaaaaaaaa.=.=.hash"),
        (
            "x" * 200,
            "protoflow-topic-" + "x" * 161 + "___viqmeprsagbuaudh",
            "protoflow." + "x" * 200,
        ),
    ],
)
def test_names_of_topics_do_not_change(topic: str, stream: str, subject: str) -> None:
    names = JetStreamNames("protoflow")
    assert names.stream(topic) == stream
    assert names.subjects(topic) == [subject]
    assert names.subject(topic) == names.all_of(topic) == subject


def test_names_of_groups_shards_and_schedules_do_not_change() -> None:
    names = JetStreamNames("protoflow", 2)
    group = "shop.v1.Billing_a"
    assert names.group_stream(group) == "protoflow-group-shop_v1_Billing=a"
    assert names.durables(group) == ["shop_v1_Billing=a~0", "shop_v1_Billing=a~1"]
    assert names.subjects("eu..orders") == [
        "protoflow.eu.=.orders.=0",
        "protoflow.eu.=.orders.=1",
    ]
    assert names.all_of("orders") == "protoflow.orders.*"
    assert names.subject("orders", b"k1") == "protoflow.orders.=1"
    retry = names.retry_topic("eu..orders", group)
    assert retry == "=retry.shop_v1_Billing=a.eu..orders"
    assert names.stream(retry) == names.group_stream(group)
    assert names.subject(retry, b"k1") == "protoflow.=retry.shop_v1_Billing=a.eu.=.orders"
    replay = names.replay_topic("eu..orders", group)
    assert replay == "=retry.~replay.shop_v1_Billing=a.eu..orders"
    assert names.stream(replay) == names.stream("eu..orders")
    assert names.subject(replay, b"k1") == (
        "protoflow.=retry.~replay.shop_v1_Billing=a.eu.=.orders.=1"
    )
    assert names.replays("orders") == [
        "protoflow.=retry.~replay.*.orders.=0",
        "protoflow.=retry.~replay.*.orders.=1",
    ]
    assert names.all_of(retry) == names.subject(retry)
    assert names.all_of(replay) == ("protoflow.=retry.~replay.shop_v1_Billing=a.eu.=.orders.*")
    assert names.mark("eu..orders", group, 7) == (
        "protoflow.=retry.shop_v1_Billing=a.=mark.eu.=.orders.7"
    )
    assert names.schedule("eu..orders").startswith("protoflow.=wait.eu.=.orders.")
    assert names.schedule("orders") != names.schedule("orders")
    assert names.group_subjects(group) == [
        "protoflow.=retry.shop_v1_Billing=a.>",
        "protoflow.=wait.=retry.shop_v1_Billing=a.>",
    ]


@given(_any_topic)
def test_every_name_is_legal(topic: str) -> None:
    names = JetStreamNames("protoflow.eu" * 20, 2)
    assert _SUBJECT.fullmatch(tokens(topic))
    assert _SUBJECT.fullmatch(names.subject(names.retry_topic(topic, topic)))
    assert _SUBJECT.fullmatch(names.subject(names.replay_topic(topic, topic)))
    assert _SUBJECT.fullmatch(names.schedule(topic))
    assert _SUBJECT.fullmatch(names.mark(topic, topic, "1"))
    for asset in (names.stream(topic), names.group_stream(topic), *names.durables(topic)):
        assert _ASSET.fullmatch(asset)


@given(_any_topic, _any_topic)
def test_no_two_topics_or_groups_become_one(one: str, other: str) -> None:
    names, sharded = JetStreamNames("protoflow"), JetStreamNames("protoflow", 12)
    same = one == other
    assert (tokens(one) == tokens(other)) == same
    assert (names.stream(one) == names.stream(other)) == same
    assert (names.group_stream(one) == names.group_stream(other)) == same
    assert bool({*sharded.durables(one)} & {*sharded.durables(other)}) == same
    assert names.stream(one) != names.group_stream(other)
    assert (names.retry_topic("t", one) == names.retry_topic("t", other)) == same
    assert (names.replay_topic("t", one) == names.replay_topic("t", other)) == same
    assert (names.replays(one) == names.replays(other)) == same
    retries, _ = names.group_subjects(one)
    assert not names.subject(names.replay_topic("t", other)).startswith(retries[:-1])
    assert (names.mark(one, "g", 1) == names.mark(other, "g", 1)) == same


@pytest.mark.parametrize(
    ("one", "other"), [("a.b", "a_b"), ("a.b_c", "a_b.c"), ("a..b", "a.b"), ("a..b", "a_.b")]
)
def test_dots_and_underscores_stay_apart(one: str, other: str) -> None:
    names = JetStreamNames("protoflow")
    assert names.stream(one) != names.stream(other)
    assert names.durables(one) != names.durables(other)
