"""What strangers send to RabbitMQ: nothing in a message harms anything but itself."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from hypothesis import example, given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.common import FieldTable
from protoflow import wire
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import PublishRefusedError
from protoflow.message import Message
from protoflow.transports.rabbitmq import frames, reading
from protoflow.transports.rabbitmq.codec import decode, deliveries, encode

from tests.transports.rabbitmq.amqp_raw import (
    RawPublisher,
    array,
    integer,
    raw_publisher,
    table,
    text,
)
from tests.transports.rabbitmq.harness import Harness, payloads

pytestmark = pytest.mark.timeout(90)

_SECONDS = 1_753_500_000
_DEATH = b"F" + table((b"queue", text(b"protoflow/t/g/retry-5s")), (b"count", integer(9)))
#: Name, the flag of a property, its bytes.
HOSTILE: dict[str, tuple[int, bytes]] = {
    "time as a number": (frames.HEADERS, table((b"cloudEvents:time", integer(2**61)))),
    "time in nanoseconds": (
        frames.HEADERS,
        table((b"cloudEvents_time", integer(_SECONDS * 10**9))),
    ),
    "negative time": (frames.HEADERS, table((b"ce-time", integer(-(2**62))))),
    "timestamp in us": (frames.TIMESTAMP, struct.pack(">Q", _SECONDS * 10**6)),
    "timestamp in ns": (frames.TIMESTAMP, struct.pack(">Q", _SECONDS * 10**9)),
    "timestamp of 2^64-1": (frames.TIMESTAMP, b"\xff" * 8),
    "header timestamp of 2^62": (
        frames.HEADERS,
        table((b"when", b"T" + struct.pack(">Q", 2**62))),
    ),
    "Latin-1 message id": (frames.MESSAGE_ID, b"\x03M\xfcx"),
    "Latin-1 app id": (frames.APP_ID, b"\x03M\xfcx"),
    "Latin-1 type": (frames.TYPE, b"\x03M\xfcx"),
    "Latin-1 header name": (frames.HEADERS, table((b"M\xfcx", text(b"x")))),
    "long Latin-1 header name": (frames.HEADERS, table((b"\xfc" * 200, text(b"x")))),
    "Latin-1 header value": (frames.HEADERS, table((b"x", text(b"M\xfcx")))),
    "Latin-1 key": (frames.HEADERS, table((b"pf_key", text(b"M\xfcx")))),
    "a number as id": (frames.HEADERS, table((b"cloudEvents_id", integer(5)))),
    "infinite attempts": (
        frames.HEADERS,
        table((b"pf_group", text(b"billing")), (b"pf_attempt", text(b"inf"))),
    ),
    "deaths that are text": (frames.HEADERS, table((b"x-death", text(b"text")))),
    "deaths that are numbers": (
        frames.HEADERS,
        table((b"x-death", array(integer(1), integer(2)))),
    ),
    "deaths in our queues": (frames.HEADERS, table((b"x-death", array(_DEATH)))),
    "a count of hand-outs": (frames.HEADERS, table((b"x-delivery-count", integer(999_999)))),
    "a negative count": (frames.HEADERS, table((b"x-delivery-count", integer(-5)))),
    "a count that is text": (frames.HEADERS, table((b"x-delivery-count", text(b"9")))),
    "copies": (frames.HEADERS, table((b"CC", array(text(b"elsewhere"))))),
    "deep": (
        frames.HEADERS,
        table((b"x", b"F" + table((b"a", array(b"V", b"F" + table((b"b", b"t\1"))))))),
    ),
}


@pytest.fixture
async def raw(url: str) -> AsyncIterator[RawPublisher]:
    async with raw_publisher(url) as publisher:
        yield publisher


class TestReading:
    async def test_no_message_ends_a_connection_or_stops_its_neighbours(
        self,
        harness: Harness,
        raw: RawPublisher,
        tmp_path: Path,
    ) -> None:
        topic, other = harness.topic(), harness.topic("other")
        member, neighbour = await harness.join(topic), await harness.join(other)
        for number, (flags, properties) in enumerate(HOSTILE.values()):
            await raw.publish("protoflow", topic, flags, properties, b"hostile %d" % number)
            await harness.send(topic, b"good %d" % number)
        await harness.send(other, b"neighbour")
        taken = await member.take(2 * len(HOSTILE))
        assert payloads(taken) == [
            kind % number for number in range(len(HOSTILE)) for kind in (b"hostile %d", b"good %d")
        ]
        assert payloads(await neighbour.take(1)) == [b"neighbour"]
        assert [delivery.deliveries for delivery in taken] == [1] * len(taken)
        assert not [delivery for delivery in taken if delivery.own_place or delivery.suspect]
        assert (member.listener.healthy, neighbour.listener.healthy) == ([], [])
        # Each can be dead-lettered, listed and replayed.
        dead_letters, transport = f"{topic}..billing..dead", harness.transport
        for delivery in taken:
            metadata = {**delivery.message.metadata, wire.PF_ORIGINAL_TOPIC: topic}
            metadata[wire.PF_GROUP] = "billing"
            await harness.publish(
                dataclasses.replace(
                    delivery.message, topic=dead_letters, metadata=metadata, mandatory=True
                )
            )
        await member.ack(*taken)
        listed = await dead_letters_of(transport).list(dead_letters, limit=1000)
        assert [dead_letter.message.payload for dead_letter in listed] == payloads(taken)
        assert await dead_letters_of(transport).replay(dead_letters) == len(taken)
        again = await member.take(len(taken))
        assert sorted(payloads(again)) == sorted(payloads(taken))

    def test_what_is_plausible_is_read(self) -> None:
        def read(name: str) -> tuple[Message, reading.Properties]:
            flags, data = HOSTILE[name]
            header = struct.pack(">HHQH", 60, 0, 0, flags) + data
            _, properties = reading.properties(header)
            return decode("t", properties, b"", "protoflow/")[0], properties

        assert read("time in nanoseconds")[0].metadata["ce_time"] == "2025-07-26T03:20:00Z"
        assert read("time as a number")[0].metadata["ce_time"].startswith("2043-01-25")
        for unit in ("us", "ns"):
            _, properties = read(f"timestamp in {unit}")
            assert reading.moment(properties.timestamp or 0) == _SECONDS
        assert read("Latin-1 message id")[0].id == "Müx"
        assert read("Latin-1 header name")[0].metadata["Müx"] == "x"
        assert "CC" not in read("copies")[0].metadata

    @given(st.integers(0, 0xFFFF), st.binary(max_size=200), st.binary(max_size=50))
    @example(frames.HEADERS, table((b"x", b"Z")), b"")
    @example(frames.HEADERS, b"\0\0\xff\xff", b"")
    @example(frames.HEADERS, table((b"x-death", b"A\0\0\0\4F\0\0\0")), b"")
    def test_any_bytes_are_a_message_that_can_be_written(
        self, flags: int, data: bytes, body: bytes
    ) -> None:
        _, properties = reading.properties(struct.pack(">HHQH", 60, 0, len(body), flags) + data)
        deliveries(properties, again=True)
        message, _ = decode("t", properties, body, "protoflow/")
        encode(message, 1.0, "protoflow/")

    @given(st.data())
    def test_any_headers_are_a_message_that_can_be_written(self, data: Any) -> None:
        names = st.binary(max_size=255)
        values = st.one_of(
            st.builds(text, st.binary(max_size=50)),
            st.builds(integer, st.integers(-(2**63), 2**63 - 1)),
            st.builds(lambda raw: b"T" + raw, st.binary(min_size=8, max_size=8)),
            st.builds(lambda raw: b"d" + raw, st.binary(min_size=8, max_size=8)),
            st.builds(lambda raw: b"F" + table((b"a", text(raw))), st.binary(max_size=9)),
            st.builds(array, st.builds(integer, st.just(1))),
        )
        known = st.sampled_from(
            [b"x-death", b"CC", b"BCC", b"x-delivery-count", b"cloudEvents_time", b"pf_tombstone",
             b"pf_key", b"pf_key_encoding", b"x-first-death-queue", b"cloudEvents_id"]
        )  # fmt: skip
        fields = data.draw(st.lists(st.tuples(st.one_of(known, names), values), max_size=8))
        header = struct.pack(">HHQH", 60, 0, 0, frames.HEADERS) + table(*fields)
        _, properties = reading.properties(header)
        assert properties.problem is None
        message, _ = decode("t", properties, b"", "protoflow/")
        assert message.id.encode()
        _, written = encode(message, 1.0, "protoflow/")
        for order in (b"\2CC", b"\3BCC"):
            assert order not in written or any(order[1:] in name for name, _ in fields)


class TestCopies:
    async def test_a_strangers_copies_end_with_its_own_message(
        self,
        harness: Harness,
        native: AbstractChannel,
    ) -> None:
        topic = harness.topic()
        member, other = await harness.join(topic), await harness.join(topic, "audit")
        await native.basic_publish(
            b"x",
            exchange="protoflow",
            routing_key="elsewhere",
            properties=Basic.Properties(headers={"CC": [topic]}, message_id="foreign"),
        )
        (delivery,) = await member.take(1)
        (copy,) = await other.take(1)
        await harness.publish(
            dataclasses.replace(delivery.message, topic=f"{topic}..billing..dead", mandatory=True)
        )
        await member.ack(delivery)
        await other.ack(copy)
        await member.nothing()
        await other.nothing()

    async def test_metadata_that_orders_copies_is_refused_and_spares_its_neighbours(
        self,
        harness: Harness,
    ) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        good = [harness.message(topic, b"%d" % number) for number in range(10)]
        for name in ("CC", "BCC"):
            bad = harness.message(topic, b"bad", metadata={name: "boss@example.org"})
            errors = await harness.transport.submit([*good[:5], bad, *good[5:]])
            assert isinstance(errors[5], PublishRefusedError)
            assert name in str(errors[5])
            assert [error for error in errors if error is not errors[5]] == [None] * 10
            taken = await member.take(10)
            assert payloads(taken) == [message.payload for message in good]
            await member.ack(*taken)


class TestOwnPlaces:
    async def test_hop_state_is_believed_only_where_the_runtime_writes(
        self,
        harness: Harness,
        native: AbstractChannel,
    ) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        forged: FieldTable = {"pf_group": "billing", "pf_attempt": "9", "x-death": [
            {"queue": f"protoflow/{topic}/billing/retry-5s", "reason": "expired", "count": 1}
        ]}  # fmt: skip
        for exchange, key in (
            ("protoflow", topic),
            ("", f"protoflow/{topic}/billing"),
            ("protoflow/+due", ".".join("0" * 26) + f".{topic}"),
        ):
            await native.basic_publish(
                b"forged",
                exchange=exchange,
                routing_key=key,
                properties=Basic.Properties(headers=forged),
                mandatory=True,
            )
            (delivery,) = await member.take(1)
            assert not delivery.own_place
            await member.ack(delivery)

    @pytest.mark.parametrize("delay", [0.0, 0.2])
    async def test_our_own_retries_are_believed(
        self,
        harness: Harness,
        monkeypatch: pytest.MonkeyPatch,
        delay: float,
    ) -> None:
        topic = harness.topic()
        transport = await harness.connect()
        monkeypatch.setattr("protoflow.transports.rabbitmq.retry_delays.rung", lambda *_: 5.0)
        member = await harness.join(topic, transport=transport)
        deferred = member.subscription.defer(harness.message(topic, b"again"), delay)
        assert deferred is not None
        await harness.publish(deferred, transport=transport)
        (delivery,) = await member.take(1, within=10)
        assert delivery.own_place
        assert delivery.message.topic == topic
        await member.ack(delivery)

    async def test_nobody_publishes_where_waits_come_back(
        self,
        harness: Harness,
        native: AbstractChannel,
    ) -> None:
        topic = harness.topic()
        await harness.join(topic)
        with pytest.raises(Exception, match="internal"):
            await native.basic_publish(
                b"x", exchange="protoflow/+back", routing_key=f"protoflow/{topic}/billing"
            )
