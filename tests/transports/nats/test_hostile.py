"""What a message or a stranger can try at NATS: it is that message's failure alone."""

from __future__ import annotations

import asyncio
import math
import string
import uuid
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import nats
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Action, Delivery, Message, Settlement
from protoflow.transport import Transport
from protoflow.transports.nats.jetstream.buffers import Lease
from protoflow.transports.nats.jetstream.pending import refusal
from protoflow.transports.nats.jetstream.settler import payload_of
from protoflow.transports.nats.names import JetStreamNames
from protoflow.transports.nats.wire import headers

from tests.brokers import url_of, url_or_skip
from tests.transports.nats.harness import ack, join, message, opened, payloads, publish, take, topic

#: What a message may hold that cannot be written, and a word of the refusal.
UNWRITABLE: list[tuple[dict[str, Any], str]] = [
    ({"metadata": {"x": "\udce9"}}, "lone surrogate"),
    ({"metadata": {"correlation_id": "x\ud800"}}, "lone surrogate"),
    ({"metadata": {"pf_error_message": "\udfff\n"}}, "surrogate"),
    ({"id": "\ud800"}, "surrogate"),
    ({"metadata": {"a": 1}}, "written"),
    ({"metadata": {"a": None}}, "written"),
    ({"metadata": {"no good": "x"}}, "no good"),
    ({"metadata": {"": "x"}}, "name of a NATS header"),
    ({"metadata": {"Nats-Msg-Id": "a"}}, "command to the server"),
    ({"metadata": {"nats-ttl": "1s"}}, "command to the server"),
    ({"metadata": {"Nats-Expected-Last-Sequence": "99"}}, "command to the server"),
    ({"metadata": {"Nats-Schedule": "@at 2020-01-01T00:00:00Z"}}, "command to the server"),
    ({"metadata": {"NATS-Rollup": "all"}}, "command to the server"),
    ({"headers": {"Nats-Msg-Id": "a"}}, "command to the server"),
    ({"payload": "text"}, "not bytes"),
    ({"key": "text"}, "written"),
]


@pytest.fixture(params=["jetstream", "nats"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    url = url_or_skip(request.param)
    async with opened(url) as transport:
        yield transport


@pytest.fixture
async def jetstream() -> AsyncIterator[Transport]:
    url = url_or_skip("jetstream")
    async with opened(url) as transport:
        yield transport


@pytest.mark.parametrize(("fields", "word"), UNWRITABLE)
async def test_what_cannot_be_written_is_refused_by_itself_and_at_once(
    transport: Transport, fields: dict[str, Any], word: str
) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    bad = (
        message(name, **fields)
        if "payload" not in fields
        else Message(id="bad", topic=name, **fields)
    )
    good = [message(name, b"%d" % number) for number in range(4)]
    results = [*await asyncio.wait_for(transport.submit([*good[:2], bad, *good[2:]]), 3)]
    assert [type(result) for result in results[:2] + results[3:]] == [type(None)] * 4
    assert isinstance(results[2], PublishRefusedError)
    assert word in str(results[2])
    assert payloads(await take(subscription, 4)) == [b"0", b"1", b"2", b"3"]


async def test_two_messages_with_one_foreign_id_in_their_metadata_both_arrive(
    jetstream: Transport,
) -> None:
    """A stranger's header of the server's own is not taken over when his message is passed on."""
    name, other = topic(), topic()
    subscription, _ = await join(jetstream, name)
    target, _ = await join(jetstream, other)
    client = await nats.connect((url_of("jetstream") or "").replace("jetstream://", "nats://"))
    orders = {"Nats-Expected-Stream": JetStreamNames("protoflow").stream(name), "a": "b"}
    await client.publish(f"protoflow.{name}", b"1", headers={**orders, "Nats-Msg-Id": "one"})
    await client.publish(f"protoflow.{name}", b"2", headers={**orders, "Nats-Msg-Id": "two"})
    await client.close()
    came = await take(subscription, 2)
    for delivery in came:
        assert [*delivery.message.metadata] == ["a"]
    again = [
        Message(
            id=one.message.id,
            topic=other,
            payload=one.message.payload,
            metadata=one.message.metadata,
            headers=one.message.headers,
        )
        for one in came
    ]
    await publish(jetstream, *again)
    assert payloads(await take(target, 2)) == [b"1", b"2"]


@pytest.mark.parametrize("id", ["a\r\nNats-TTL: 1s", "a\nb", " a", "a%0Ab", "100%", "\0"])
async def test_an_id_cannot_bring_headers_with_it(jetstream: Transport, id: str) -> None:
    name = topic()
    subscription, _ = await join(jetstream, name)
    for _ in range(2):
        await publish(jetstream, message(name, id=id, deduplication_id=f"{id}:{name}"))
    await publish(jetstream, message(name, b"last"))
    assert payloads(await take(subscription, 2)) == [b"x", b"last"]


async def test_headers_beyond_a_streams_limit_are_refused_for_good(jetstream: Transport) -> None:
    name = topic()
    await join(jetstream, name)
    large = message(name, metadata={"a": "x" * 100_000})
    good, error = await jetstream.submit([message(name), large])
    assert good is None
    assert isinstance(error, PublishRefusedError)
    assert "bytes of headers are more than the 65535 of a stream" in str(error)


async def test_an_answer_that_is_no_streams_confirms_nothing() -> None:
    """Anybody may listen to a subject and answer what comes."""
    url = url_or_skip("jetstream")
    async with opened(url, publish_timeout=3.0) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        client = await nats.connect(url.replace("jetstream://", "nats://"))

        async def answer(received: Any) -> None:
            for text in (b"hello", b"{", b'"error"', b'{"error": 1}', b"[1]"):
                await client.publish(received.reply, text)

        await client.subscribe(f"protoflow.{name}", cb=answer)
        await client.flush()
        await publish(transport, message(name, b"1"), message(name, b"2"))
        taken = await take(subscription, 2)
        assert payloads(taken) == [b"1", b"2"]
        await ack(subscription, *taken)
        await client.close()


@given(st.binary(max_size=60) | st.sampled_from([b'{"error": {"err_code": "x"}}', b'{"seq": 1}']))
def test_an_answer_is_understood_or_left(payload: bytes) -> None:
    try:
        error = refusal("t", payload)
    except ValueError:
        return
    assert error is None or isinstance(error, PublishError)


_NAMES = [
    "ce-", "ce-id", "CE-ID", "ce-time", "ce-datacontenttype", "Content-Type", "content-type",
    "datacontenttype", "ce_id", "ce_", "id", "message_id", "_watermill_message_uuid", "pf_key",
    "PF_KEY", "ce-partitionkey", "pf_encoded", "PF_ENCODED", "pf_tombstone", "Nats-Msg-Id",
    "nats-msg-id", "Nats-X", "", "name", " x", "x y", "é", "a:b", "Status", "Description",
    "pf_attempt", "pf_due", "pf_group",
]  # fmt: skip
_VALUES = [
    "", "x", "%", "%zz", "%ff", '"', '""', '"a\\"', "a,b", " ", "application/cloudevents+json",
    "é\0", "1" * 300, "pf_encoded", "ce-id", "inf", "-1", "9" * 40, "%ed%a0%80", "%00",
]  # fmt: skip
_LINES = st.tuples(
    st.sampled_from(_NAMES) | st.text(max_size=6),
    st.sampled_from([":", ": ", "", "::"]),
    st.sampled_from(_VALUES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=9),
).map("".join)
_BLOCKS = st.builds(
    lambda first, lines, noise: _noisy("\r\n".join([first, *lines, "", ""]).encode(), noise),
    st.sampled_from(["NATS/1.0", "NATS/1.0 100", "NATS/1.0 408 Request", "", "XXXX", "NATS/1.0 x"]),
    st.lists(_LINES, max_size=6),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=3),
)


def _noisy(block: bytes, noise: list[tuple[int, int]]) -> bytes:
    changed = bytearray(block)
    for at, byte in noise:
        if at < len(changed):
            changed[at] = byte
    return bytes(changed)


@given(_BLOCKS | st.binary(max_size=80))
@settings(deadline=None, max_examples=500)
def test_every_block_of_headers_is_read_and_can_be_written_again(block: bytes) -> None:
    headers.read(block)
    read = headers.decode("t", b"", block)
    assert not any(name[:5].lower() == "nats-" for name in read.metadata)
    read.id = read.id or "1"
    written = headers.block(headers.encode(read))
    again = headers.decode("t", b"", written)
    assert again.metadata.items() >= {
        name: value for name, value in read.metadata.items() if not name.startswith("ce_")
    }.items() - {("content-type", read.metadata.get("content-type"))}


def test_a_message_that_cannot_be_decoded_is_handed_out_as_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> Message:
        raise RuntimeError("no such thing")

    monkeypatch.setattr("protoflow.transports.nats.jetstream.buffers.decode", fail)
    source: Any = SimpleNamespace(stream="stream", shard=2, held=0, own=False, replays=b"")
    lease = Lease.of((b"s", b"$JS.ACK.s.c.1.2.3.4.5", b"NATS/1.0", b"payload"), source, "t", 1.0)
    assert lease.delivery.unreadable == "headers: RuntimeError: no such thing"
    assert lease.delivery.message.payload == b"payload"
    assert lease.delivery.message.id == "stream:2"


@pytest.mark.parametrize("delay", [math.nan, math.inf, -math.inf, -1.0, 1e300, 0.0])
def test_no_delay_breaks_a_settlement(delay: float) -> None:
    delivery = Delivery(message=message(topic()))
    assert payload_of(Settlement(delivery, Action.NACK, delay=delay)) == b"-NAK"


async def test_hop_state_is_believed_only_from_the_groups_own_stream(jetstream: Transport) -> None:
    name = topic()
    subscription, _ = await join(jetstream, name)
    forged = {"pf_attempt": "7", "pf_group": "billing", "pf_due": "9e15"}
    await publish(jetstream, message(name, metadata=forged))
    (delivery,) = await take(subscription, 1)
    assert not delivery.own_place
    assert (delivery.failures, delivery.first_failure) == (0, 0.0)
    later = subscription.defer(delivery.message, 0.5)
    assert later is not None
    await publish(jetstream, later)
    await ack(subscription, delivery)
    (again,) = await take(subscription, 1)
    assert again.own_place
    await ack(subscription, again)


_HEADERS = [
    b"NATS/1.0\r\nX Y: v\r\n\r\n", "NATS/1.0\r\nÜ: v\r\n\r\n".encode(), b"NATS/1.0\r\n: v\r\n\r\n",
    b"NATS/1.0\r\na/b: v\r\n\r\n", b"NATS/1.0\r\ngarbage\r\n\r\n", b"NATS/1.0\r\n\xff: v\r\n\r\n",
    b"NATS/1.0\r\na\0b: v\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n", b"XXXX\r\n\r\n",
    b"NATS/1.0 409 Consumer Deleted\r\n\r\n", b"NATS/1.0 503\r\n\r\n",
    b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", b"NATS/1.0 408 Request Timeout\r\n\r\n",
    b"NATS/1.0\r\na: v\nb: w\r\n\r\n",
    b"NATS/1.0\r\npf_encoded: ce-type,content-type\r\nce-type: a%0D%0Ab\r\n\r\n",
    b"NATS/1.0\r\nNats-Pending-Messages: x\r\n\r\n", b"NATS/1.0\r\nce-id: \xed\xa0\x80\r\n\r\n",
    b"NATS/1.0\r\n" + b"".join(b"h%d: v\r\n" % n for n in range(2000)) + b"\r\n",
]  # fmt: skip


async def test_strange_headers_of_a_raw_client_hold_up_nobody(transport: Transport) -> None:
    name = topic()
    subscription, listener = await join(transport, name)
    prefix = "protoflow." if "JetStream" in type(transport).__name__ else ""
    address = url_of("nats") or ""
    host, _, port = address.rpartition("/")[2].partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose":false,"headers":true,"no_responders":true}\r\n')
    for number, block in enumerate(_HEADERS):
        body = b"bad%d" % number
        subject = f"{prefix}{name}".encode()
        sizes = b"%d %d" % (len(block), len(block) + len(body))
        writer.write(b"HPUB %b %b\r\n%b%b\r\n" % (subject, sizes, block, body))
        writer.write(b"PUB %b 5\r\ngood%d\r\n" % (subject, number % 10))
    writer.write(b"PING\r\n")
    await writer.drain()
    while not (await asyncio.wait_for(reader.readline(), 5)).startswith(b"PONG"):
        pass
    taken = await take(subscription, 2 * len(_HEADERS))
    assert payloads(taken)[1::2] == [b"good%d" % (number % 10) for number in range(len(_HEADERS))]
    assert payloads(taken)[::2] == [b"bad%d" % number for number in range(len(_HEADERS))]
    await publish(transport, *[replace_topic(one.message, topic("again")) for one in taken])
    await ack(subscription, *taken)
    assert [healthy for healthy, _ in listener.health if not healthy] == []
    writer.close()


async def test_no_order_of_a_stranger_takes_messages_out_of_a_topic(jetstream: Transport) -> None:
    """`Nats-Rollup` purges, `Nats-Schedule-Next` removes what is not due, schedules repeat."""
    name = topic()
    subscription, _ = await join(jetstream, name)
    await publish(jetstream, *[message(name, b"%d" % number) for number in range(3)])
    subject = f"protoflow.{name}"
    orders = [
        {"Nats-Rollup": "all"},
        {"Nats-Rollup": "sub"},
        {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": subject},
        {"Nats-Schedule-Next": "purge", "Nats-Scheduler": subject},
    ]
    client = await nats.connect((url_of("jetstream") or "").replace("jetstream://", "nats://"))
    try:
        for order in orders:
            answer = await client.request(subject, b"bad", headers=order)
            assert b'"error"' in answer.data, order
    finally:
        await client.close()
    taken = await take(subscription, 3)
    assert payloads(taken) == [b"0", b"1", b"2"]
    await ack(subscription, *taken)


def replace_topic(received: Message, name: str) -> Message:
    return Message(
        id=received.id or uuid.uuid4().hex,
        topic=name,
        payload=received.payload,
        metadata=received.metadata,
        headers=received.headers,
    )


@given(st.text(alphabet=string.printable, max_size=12))
def test_a_topic_is_one_word_of_the_protocol_or_refused(name: str) -> None:
    from protoflow.transports.nats.names import check

    try:
        check(JetStreamNames("protoflow").subject(name))
    except ValueError:
        return
    assert len(f"protoflow.{name}".split()) == 1
    assert not {"*", ">"} & {*name}
