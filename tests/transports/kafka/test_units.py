"""Headers, names, options, ready deliveries and submissions, without a broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from protoflow import transports, wire
from protoflow.codecs.bindings import KAFKA
from protoflow.config.secret import Secret
from protoflow.config.url import TransportURL
from protoflow.errors import ConfigError, PublishError, TopologyError
from protoflow.message import Delivery, Message
from protoflow.transport import (
    SubscriptionSettings,
    Topology,
    TopologyMode,
    TransportSettings,
)
from protoflow.transports.kafka import headers, names
from protoflow.transports.kafka.broker_queries import refresh_existing
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.fair_share import FairShare
from protoflow.transports.kafka.options import KafkaOptions, client_arguments
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.publish_deadlines import Deadlines
from protoflow.transports.kafka.publisher import KafkaPublisher
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup
from protoflow.transports.kafka.ready_deliveries import ReadyDeliveries
from protoflow.transports.kafka.topics import SubscriptionTopics
from protoflow.transports.kafka.topology import ensure, wanted_topics

NAMES = st.sampled_from(
    ["ce_type", "ce_source", "ce_subject", "content-type", "x", "pf_group", "traceparent"]
)
METADATA = st.dictionaries(NAMES, st.text(max_size=8))


@given(st.text(min_size=1, max_size=8), METADATA)
def test_headers_are_those_of_the_binding(id: str, metadata: dict[str, str]) -> None:
    message = Message(id=id, topic="t", payload=b"", metadata=metadata)
    expected = [(name, value.encode()) for name, value in KAFKA.headers(id, metadata)]
    written = headers.write(message)
    assert written == expected
    got = headers.read(written)
    text = [(name, value.decode()) for name, value in written if value is not None]
    assert got[:2] == KAFKA.read(text)
    assert got[0] == id


def test_what_is_not_text_stays_native_and_loses_nothing_else() -> None:
    native = (("bin", b"\xff\x00"), ("none", None), ("ce_id", b"7"), ("a", b"1"), ("a", b"2"))
    id, metadata, size = headers.read(native)
    assert id == "7"
    assert metadata == {"a": "2"}
    assert size == 5 + 4 + 6 + 2 + 2
    again = headers.write(
        Message(id="7", topic="t", payload=b"", metadata={**metadata, "b": "3"}, headers=native)
    )
    for header in native:
        assert header in again
    assert ("b", b"3") in again
    assert [name for name, _ in again].count("ce_id") == 1


def test_metadata_are_laid_over_native_headers_by_name() -> None:
    native = (("a", b"1"), ("a", b"2"), ("Content-Type", b"text/plain"))
    message = Message(
        id="7",
        topic="t",
        payload=b"",
        metadata={"a": "new", "content-type": "text/plain"},
        headers=native,
    )
    written = headers.write(message)
    assert [value for name, value in written if name == "a"] == [b"new"]
    assert [name for name, _ in written if name.lower() == "content-type"] == ["Content-Type"]


def test_hop_state_that_was_dropped_does_not_come_back_from_native_headers() -> None:
    native = (("pf_due", b"1"), ("pf_group", b"g"), ("x", b"1"))
    message = Message(
        id="7", topic="t", payload=b"", metadata={"pf_group": "g", "x": "1"}, headers=native
    )
    written = [name for name, _ in headers.write(message)]
    assert "pf_due" not in written
    assert {"pf_group", "x"} <= set(written)


def test_a_watermill_id_and_a_foreign_content_type_are_read() -> None:
    id, metadata, _ = headers.read(((wire.WATERMILL_ID, b"w-1"), ("Content-Type", b"text/plain")))
    assert id == "w-1"
    assert metadata["content-type"] == "text/plain"


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("a.b-c_d", True),
        ("", False),
        ("..", False),
        ("a b", False),
        ("ö", False),
        ("x" * 250, False),
    ],
)
def test_names_of_topics(name: str, valid: bool) -> None:
    assert names.is_valid(name) is valid


@given(
    st.text("abc.", min_size=1, max_size=200),
    st.text("abc.", min_size=1, max_size=200),
    st.sampled_from([0, 5, 0.5, 30, 3600, 86400 * 30]),
)
def test_retry_topics_are_always_names(topic: str, group: str, step: float) -> None:
    assert names.is_valid(names.retry_topic(topic, group, step))


def test_retry_topics_are_called_after_their_rung() -> None:
    assert names.retry_topic("orders", "billing", 5.0) == "orders..billing..retry.5"
    assert names.retry_topic("orders", "billing", 0.0) == "orders..billing..retry.0"
    assert names.retry_topic("orders", "billing", 0.5) == "orders..billing..retry.0.5"
    assert names.retry_topic("x" * 240, "billing", 3600.0) == (
        "x" * 206 + "...ctzbukwjt4t7axt3..retry.3600"
    )


SEGMENTS = st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=4).map(".".join)


@given(st.tuples(SEGMENTS, SEGMENTS), st.tuples(SEGMENTS, SEGMENTS), st.sampled_from([0, 5, 0.5]))
def test_retry_topics_of_two_groups_are_never_one(
    one: tuple[str, str], other: tuple[str, str], step: float
) -> None:
    first, second = names.retry_topic(*one, step), names.retry_topic(*other, step)
    assert (first == second) == (one == other)
    assert names.step_of(first, *one) == step
    assert (names.step_of(first, *other) is None) == (one != other)


def test_names_that_kafka_takes_for_one_are_found() -> None:
    assert names.clashes(["a.b", "a_b", "c", "a.b"]) == [("a.b", "a_b")]
    assert names.clashes(["a.b", "ab", "a-b"]) == []


def arguments(url: str, **options: object) -> dict[str, object]:
    settings = TransportSettings(url=TransportURL.parse(url))
    return client_arguments(settings, KafkaOptions(**options))  # type: ignore[arg-type]


def test_security_follows_from_the_url() -> None:
    assert arguments("kafka://a,b:1")["bootstrap_servers"] == ["a:9092", "b:1"]
    assert arguments("kafka://a")["security_protocol"] == "PLAINTEXT"
    assert arguments("kafka+ssl://a")["security_protocol"] == "SSL"
    sasl = arguments("kafka+ssl://me:pa%24s@a")
    assert sasl["security_protocol"] == "SASL_SSL"
    assert (sasl["sasl_plain_username"], sasl["sasl_plain_password"]) == ("me", "pa$s")
    assert sasl["sasl_mechanism"] == "PLAIN"
    given = arguments("kafka://a", username="me", password=Secret("pa$s"))
    assert given["security_protocol"] == "SASL_PLAINTEXT"
    assert (given["sasl_plain_username"], given["sasl_plain_password"]) == ("me", "pa$s")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("liner=1", "did you mean linger"),
        ("compression=rar", "option compression: must be one of"),
        ("heartbeat_interval=11", "heartbeat_interval must be below"),
        ("window=-1", "window must be 0 to 5120"),
        ("sasl_mechanism=oauthbearer", "needs sasl_oauth_token_provider"),
        ("sasl_mechanism=oauthbearer&sasl_oauth_token_provider=no.such:thing", "must name a"),
    ],
)
def test_bad_options_are_refused(query: str, problem: str) -> None:
    settings = TransportSettings(url=TransportURL.parse(f"kafka://u:secret@a?{query}"))
    with pytest.raises(ConfigError, match=problem) as caught:
        transports.create(settings)
    assert "secret@" not in str(caught.value)


def test_a_missing_authority_is_reported_without_secrets() -> None:
    settings = TransportSettings(
        url=TransportURL.parse("kafka+ssl://u:hunter2@a"),
        options={"tls_ca_file": "/nowhere/ca.pem"},
    )
    with pytest.raises(ConfigError, match="tls_ca_file") as caught:
        transports.create(settings)
    assert "hunter2" not in str(caught.value)


def delivery(position: int, partition: Partition, size: int = 1) -> Delivery:
    message = Message(id=str(position), topic="t", payload=b"")
    return Delivery(message=message, shard=0, position=position, size=size, receipt=partition)


def reading() -> tuple[ReadyDeliveries, Partition]:
    tp = TopicPartition("t", 0)
    partition = Partition(tp, 0, 0)
    share = FairShare(subscribed("t", "g"), {tp: partition})
    return ReadyDeliveries(share, ReaderWakeup()), partition


async def test_ready_deliveries_keep_order_when_some_are_put_back() -> None:
    ready, partition = reading()
    ready.put(partition, [delivery(number, partition) for number in range(5)])
    taken = await ready.get(3, 100)
    ready.put_back([taken[2]])
    ready.put_back([taken[0], taken[1]])
    assert [item.position for item in await ready.get(9, 100)] == [0, 1, 2, 3, 4]


async def test_one_ready_delivery_is_handed_out_however_large_it_is() -> None:
    ready, partition = reading()
    ready.put(partition, [delivery(number, partition, size=50) for number in range(2)])
    assert len(await ready.get(9, 10)) == 1


async def test_closed_ready_deliveries_raise_the_reason() -> None:
    ready, _ = reading()
    waiting = asyncio.ensure_future(ready.get(1, 1))
    await asyncio.sleep(0)
    ready.close(PublishError("gone"))
    with pytest.raises(PublishError):
        await waiting


async def test_a_submission_that_is_never_confirmed_expires() -> None:
    deadlines = Deadlines(0.02)
    early, late = deadlines.submission(2), deadlines.submission(1)
    early.done(0, None)
    (first, second), (third,) = await asyncio.gather(early.future, late.future)
    assert first is None
    assert isinstance(second, PublishError)
    assert isinstance(third, PublishError)
    early.done(1, None)
    assert deadlines.open == []


async def test_an_empty_submission_is_done() -> None:
    assert await Deadlines(1.0).submission(0).future == []


def topology_context(ladder: tuple[float, ...] = (5.0,)) -> Any:
    url = TransportURL.parse("kafka://a")
    settings = TransportSettings(url=url, ladder=ladder)
    return KafkaContext(
        settings=settings,
        options=KafkaOptions(),
        client={},
        admin=None,  # nothing is asked
        forget=lambda _subscription: None,
    )


def subscribed(topic: str, group: str, **fields: Any) -> SubscriptionSettings:
    return SubscriptionSettings(name=f"{topic}/{group}", topic=topic, group=group, **fields)


@pytest.mark.parametrize(
    ("subscriptions", "topics", "problem"),
    [
        (["a.b/g", "a_b/g"], [], "Kafka treats a.b and a_b as the same topic; rename one of them"),
        (["t/g"], ["t..g..retry.5"], "the topic t..g..retry.5 is the retry topic of t/g"),
        (
            ["t/g.x", "t/g_x"],
            [],
            "Kafka treats t..g.x..retry.0 and t..g_x..retry.0 as the same topic",
        ),
    ],
)
async def test_names_that_would_be_one_stop_the_start(
    subscriptions: list[str], topics: list[str], problem: str
) -> None:
    wanted = Topology(
        subscriptions=tuple(subscribed(*name.split("/")) for name in subscriptions),
        topics=tuple(topics),
    )
    with pytest.raises(TopologyError) as caught:
        await ensure(wanted, TopologyMode.NONE, topology_context())
    assert problem in str(caught.value)


def test_what_a_subscription_needs_is_made() -> None:
    dead_letters = subscribed("t", "g", broadcast=True, dead_letter_topics=("t..g..dead",))
    made = wanted_topics(Topology(subscriptions=(dead_letters,)), topology_context())
    assert [topic.name for topic in made] == ["t", "t..g..dead"], "a broadcast has dead letters too"
    ordered = subscribed("t", "g", needs_broker_retry=False, dead_letter_topics=("d",))
    made = wanted_topics(Topology(subscriptions=(ordered,)), topology_context())
    assert [(topic.name, topic.like, topic.roomy_for) for topic in made] == [
        ("t", None, None),
        ("t..g..retry.0", "t", "t"),
        ("d", None, "t"),
    ]


def test_rungs_of_an_earlier_ladder_are_found_by_name() -> None:
    existing = [
        "t",
        "t..g..retry.7",
        "t..g..retry.5",
        "t..gg..retry.9",
        "t..g..dead",
        "t..g..retry.",
    ]
    topics = SubscriptionTopics(subscribed("t", "g", needs_broker_retry=False), (5.0,), existing)
    assert topics.rungs == {"t..g..retry.0": 0.0, "t..g..retry.5": 5.0, "t..g..retry.7": 7.0}
    assert set(topics.earlier) == {"t..g..retry.5", "t..g..retry.7"}
    assert topics.shard("t..g..retry.7", 3) == "retry.7/3"


async def test_topics_named_by_data_are_not_remembered_for_ever() -> None:
    publisher = KafkaPublisher(topology_context())
    for number in range(3000):
        publisher._open_topic(f"t{number}")
    assert len(publisher._topics) <= 1024


class Topics:
    """The answers to queries for all topics."""

    def __init__(self) -> None:
        self.asked = 0
        self.failure: Exception | None = None

    async def list_topics(self) -> list[str]:
        self.asked += 1
        number = self.asked
        await asyncio.sleep(0.01)
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return [f"topic-{number}"]


async def test_calls_that_wait_share_a_query_that_was_sent_after_them() -> None:
    topics: Any = Topics()
    nothing: Any = None
    context = KafkaContext(
        settings=nothing, options=KafkaOptions(), client={}, admin=topics, forget=print
    )
    await asyncio.gather(*(refresh_existing(context) for _ in range(10)))
    assert topics.asked == 2, "one for the first, and one for all that came while it waited"
    assert context.existing == {"topic-2"}
    topics.failure = OSError("gone")
    answers = await asyncio.gather(
        *(refresh_existing(context) for _ in range(3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [OSError, type(None), type(None)]
    assert topics.asked == 4
    assert context.existing == {"topic-4"}
