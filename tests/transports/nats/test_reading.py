"""Our reader reads what nats-py's reads, however it is cut, and so for headers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle, pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from protoflow import wire
from protoflow.message import Message
from protoflow.transport import SubscriptionSettings

pytest.importorskip("nats")

from nats.aio.client import Client
from nats.errors import BadSubjectError, ProtocolError
from nats.protocol.parser import Parser
from protoflow.transports.nats.jetstream.buffers import Lease
from protoflow.transports.nats.jetstream.leases import Leases, encode_command
from protoflow.transports.nats.wire import headers
from protoflow.transports.nats.wire.client import FastClient
from protoflow.transports.nats.wire.reader import Reader, Received

from tests.transports.nats.harness import block

OURS = (b"1", b"3")


class Calls:
    """What a parser calls on a client, in order."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def _process_msg(
        self, number: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        self.calls.append((b"%d" % number, subject, reply, headers or b"", data))

    async def _process_err(self, text: str) -> None:
        self.calls.append(text)

    async def _process_ping(self) -> None:
        self.calls.append("ping")

    async def _process_pong(self) -> None:
        self.calls.append("pong")

    async def _process_info(self, info: Any) -> None:
        self.calls.append(info)

    def sink(self, number: bytes) -> Any:
        def take(messages: Sequence[Received]) -> None:
            self.calls.extend((number, *message) for message in messages)

        return take


def command(number: bytes, reply: bytes, fields: dict[str, str] | None, payload: bytes) -> bytes:
    line = b" ".join(word for word in (b"some.subject", number, reply) if word)
    if fields is None:
        return b"MSG %b %d\r\n%b\r\n" % (line, len(payload), payload)
    head = block(fields)
    sizes = b"%d %d" % (len(head), len(head) + len(payload))
    return b"HMSG %b %b\r\n%b%b\r\n" % (line, sizes, head, payload)


NAMES = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)
VALUES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12).map(str.strip)
FIELDS = st.dictionaries(NAMES, VALUES, max_size=4)
MESSAGES = st.builds(
    command,
    st.sampled_from((b"1", b"2", b"3")),
    st.sampled_from((b"", b"_INBOX.a", b"$JS.ACK.s.c.1.2.3.4.5")),
    st.none() | FIELDS,
    st.binary(max_size=40) | st.sampled_from((b"\r\n", b"MSG a 1 1\r\n")),
)
OTHERS = st.sampled_from(
    (b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Stale'\r\n", b'INFO {"max_payload": 1}\r\n')
)


#: The lengths of the pieces, in turn: single bytes, too.
CUTS = st.lists(st.integers(1, 60), min_size=1, max_size=30) | st.just([1])


@given(st.lists(MESSAGES | OTHERS, max_size=12), CUTS)
@settings(deadline=None)
async def test_what_is_read_does_not_depend_on_who_reads_nor_on_the_cuts(
    commands: list[bytes], cuts: list[int]
) -> None:
    data = b"".join(commands)
    theirs, ours = Calls(), Calls()
    await Parser(theirs).parse(data)
    reader = Reader(ours, {number: ours.sink(number) for number in OURS})
    for cut in cycle(cuts):
        await reader.parse(data[:cut])
        data = data[cut:]
        if not data:
            break
    assert ours.calls == theirs.calls


async def test_a_large_message_comes_whole_and_what_follows_too() -> None:
    calls = Calls()
    reader = Reader(calls, {b"1": calls.sink(b"1")})
    payload = bytes(range(256)) * 4096
    data = command(b"1", b"", None, payload) + b"PING\r\n"
    for at in range(0, len(data), 32_768):
        await reader.parse(data[at : at + 32_768])
    assert [calls.calls[0][4] == payload, *calls.calls[1:]] == [True, "ping"]


async def test_messages_that_come_at_once_are_handed_on_at_once() -> None:
    batches: list[int] = []
    reader = Reader(Calls(), {b"1": lambda messages: batches.append(len(messages))})
    await reader.parse(command(b"1", b"", {}, b"x") * 5)
    assert batches == [5]


@pytest.mark.parametrize("data", [b"NONSENSE\r\n", b"MSG a\r\n", b"HMSG a 1 x 5\r\n", b"\r\n"])
async def test_nonsense_is_a_protocol_error(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        await Reader(Calls(), {}).parse(data)


async def test_a_sink_that_fails_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    calls = Calls()

    def fail(_messages: Sequence[Received]) -> None:
        raise RuntimeError("nothing is taken")

    reader = Reader(calls, {b"1": fail, b"3": calls.sink(b"3")})
    await reader.parse(command(b"1", b"", None, b"a") + command(b"3", b"", None, b"b"))
    assert [call[4] for call in calls.calls] == [b"b"]
    assert "not taken" in caplog.text


@pytest.mark.parametrize(
    ("subject", "queue"), [("", ""), ("a b", ""), ("a\r\nPUB b", ""), ("a", "b 7")]
)
async def test_words_of_the_protocol_are_no_subject(subject: str, queue: str) -> None:
    client = FastClient()
    client._status = Client.CONNECTED
    with pytest.raises(BadSubjectError):
        await client.listen(subject, lambda _messages: None, queue)


def test_of_the_clients_inside_there_is_what_we_use() -> None:
    client = Client()
    for name in ("_sid", "_ps", "_flush_queue", "_pongs", "_pending", "_pending_data_size"):
        assert hasattr(client, name)
    for name in ("_send_command", "_flush_pending", "_send_ping", "_process_info"):
        assert callable(getattr(client, name))


@given(FIELDS)
def test_headers_are_read_as_the_client_reads_them(fields: dict[str, str]) -> None:
    raw = block(fields)
    assert headers.read(raw) == fields
    if theirs := getattr(Client, "_parse_header_lines", None):  # not in every version
        assert theirs(raw.partition(b"\r\n")[2]) == fields


def test_a_status_is_read_with_its_headers() -> None:
    raw = b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n"
    assert headers.read(raw) == {
        "Status": "408",
        "Description": "Request Timeout",
        "Nats-Pending-Messages": "3",
    }
    assert headers.read(b"NATS/1.0 503\r\n\r\n") == {"Status": "503", "Description": ""}
    assert headers.read(b"NATS/1.0 100 Idle Heartbeat\r\n\r\n")["Description"] == "Idle Heartbeat"


METADATA = st.dictionaries(
    NAMES.filter(lambda name: not name.lower().startswith(("nats-", "ce-", "pf_", "content-")))
    | st.sampled_from(("ce_type", "ce_source", "ce_time", "content-type", "traceparent")),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    max_size=6,
).filter(lambda metadata: not {wire.CE_ID, wire.MESSAGE_ID, wire.WATERMILL_ID} & {*metadata})


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12),
    st.none() | st.binary(min_size=1, max_size=8),
    METADATA,
    st.none() | st.binary(max_size=8),
)
@settings(deadline=None)
def test_what_is_encoded_is_decoded(
    id: str, key: bytes | None, metadata: dict[str, str], payload: bytes | None
) -> None:
    metadata.pop("ce_id", None)
    message = Message(id=id, topic="t", payload=payload, key=key, metadata=metadata)
    raw = block(headers.encode(message))
    for _ in range(2):  # as what is new, and as what was seen before
        got = headers.decode("t", payload or b"", raw)
        assert (got.id, got.key, got.payload) == (id, key, payload)
        assert {"ce_specversion": "1.0", **metadata} == {"ce_specversion": "1.0", **got.metadata}


def test_lines_that_vary_are_not_remembered() -> None:
    for number in range(1000):
        headers.decode("t", b"", block({"x-varies": str(number)}))
    known = [line for line in headers._lines if line.startswith("x-varies")]
    assert 0 < len(known) < 100


def test_names_that_pile_up_are_forgotten() -> None:
    for number in range(2000):
        headers.decode("t", b"", block({f"x-{number}": "1"}))
    assert len(headers._names) <= 500
    assert headers.decode("t", b"", block({"ce-type": "a"})).metadata == {"ce_type": "a"}


@pytest.mark.parametrize(
    "reply",
    [
        b"$JS.ACK.stream.consumer.3.17.5.1700000000500000000.9",
        b"$JS.ACK.hub.account.stream.consumer.3.17.5.1700000000500000000.9.random",
    ],
)
def test_a_lease_knows_what_the_server_says(reply: bytes) -> None:
    source: Any = SimpleNamespace(stream="stream", shard=2, held=0, own=False, replays=b"")
    lease = Lease.of((b"s", reply, b"", b"payload"), source, "t", 1.0)
    delivery = lease.delivery
    assert (delivery.deliveries, delivery.position, lease.sequence) == (3, "17", 17)
    assert (delivery.time, delivery.size, delivery.shard) == (1_700_000_000.5, 7, 2)
    assert (delivery.message.id, delivery.message.topic) == ("stream:17", "t")


def test_the_same_message_lent_again_takes_the_place_of_the_first() -> None:
    source: Any = SimpleNamespace(stream="stream", shard=2, held=0, own=False, replays=b"")
    written: list[bytes] = []
    leases = Leases(SubscriptionSettings(name="t/g", topic="t", group="g"), written.append)
    message = (b"s", b"$JS.ACK.s.c.1.2.3.4.5", b"", b"payload")
    first, second = (Lease.of(message, source, "t", now) for now in (1.0, 2.0))
    leases.add(first)
    leases.hand_out(first, 1.0)
    leases.add(second)
    assert (len(leases), source.held, leases.handed) == (1, 1, 0)
    assert leases.of(first.delivery) is None
    assert leases.of(second.delivery) is second


def test_leases_are_renewed_in_time_and_not_more_often() -> None:
    source: Any = SimpleNamespace(stream="stream", shard=2, held=0, own=False, replays=b"")
    written: list[bytes] = []
    settings = SubscriptionSettings(name="t/g", topic="t", group="g", lease=30.0)
    leases = Leases(settings, written.append)
    reply = b"$JS.ACK.s.c.1.2.3.4.5"
    leases.add(Lease.of((b"s", reply, b"", b""), source, "t", 0.0))
    renewed = []
    for tenth in range(1, 600):
        if leases.sweep(tenth / 10, connected=True):
            pytest.fail("lost")
        if written:
            assert (
                written.pop() == encode_command(reply, b"+WPI") == b"PUB %b 4\r\n+WPI\r\n" % reply
            )
            renewed.append(tenth / 10)
    assert len(renewed) == 5
    assert all(10 <= after - before < 11 for before, after in pairwise([0.0, *renewed]))
