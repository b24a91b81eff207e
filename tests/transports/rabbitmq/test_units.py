"""What of RabbitMQ's transport needs no broker."""

from __future__ import annotations

import asyncio
import itertools
import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.errors import AuthenticationError, ConfigError, ConnectionFailedError
from protoflow.message import Message
from protoflow.transport import SubscriptionSettings, Topology, Transport, TransportSettings
from protoflow.transports.rabbitmq import create
from protoflow.transports.rabbitmq.codec import Native, decode, encode
from protoflow.transports.rabbitmq.frames import content, route
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.planner import TopologyPlanner
from protoflow.transports.rabbitmq.reading import Properties, properties

_OWNER = "protoflow/"
_NAME = st.text("abz09._-", min_size=1, max_size=200)


def make(url: str, **fields: Any) -> Transport:
    return create(TransportSettings(url=TransportURL.parse(url), **fields))


def came(**fields: Any) -> Properties:
    """Properties as the client library writes them, read."""
    return properties(ContentHeader(properties=Basic.Properties(**fields)).marshal())[1]


def over_the_wire(message: Message, *, chunk: int = 131072) -> tuple[Message, Basic.Properties]:
    flags, written = encode(message, 1_700_000_000.0, _OWNER)
    body = message.payload or b""
    data = content(1, route("protoflow", message.topic, False), flags, written, body, chunk)
    values = []
    while data:
        size, _, value = frame.unmarshal(data)
        data = data[size:]
        values.append(value)
    publish, header, *bodies = values
    assert isinstance(publish, Basic.Publish)
    assert (publish.exchange, publish.routing_key) == ("protoflow", message.topic)
    assert isinstance(header, ContentHeader)
    received = b"".join(each.value for each in bodies if isinstance(each, ContentBody))
    assert header.body_size == len(received)
    start = data_of_header(flags, written, len(body))
    return decode(message.topic, properties(start)[1], received, _OWNER)[0], header.properties


def data_of_header(flags: int, written: bytes, size: int) -> bytes:
    return struct.pack(">HHQH", 60, 0, size, flags) + written


class TestNames:
    def test_are_these(self) -> None:
        names = Names("protoflow", 1)
        billing, own = names.of("orders.placed", "billing"), names.of("t", "g")
        assert billing.queue(0) == billing.address == "protoflow/orders.placed/billing"
        assert billing.retry(30.0) == "protoflow/orders.placed/billing/retry-30s"
        assert own.retry(0.25) == "protoflow/t/g/retry-250ms"
        assert names.dead_letters("t..g..dead") == "protoflow/t..g..dead"
        assert own.lock(0) == "protoflow/t/g/lock-0"
        assert own.marks(1) == "protoflow/t/g/marks-1"
        assert own.solo == "protoflow/t/g/solo"
        assert (names.retry, names.back) == ("protoflow/+retry", "protoflow/+back")
        assert names.overflow == "protoflow/+overflow"
        assert Names("protoflow", 2).of("t", "g").queue(1) == "protoflow/t/g/shard-1"

    @given(st.lists(st.tuples(_NAME, _NAME), min_size=2, max_size=4, unique=True))
    def test_are_injective_and_fit(self, pairs: list[tuple[str, str]]) -> None:
        one, many = Names("protoflow", 1), Names("protoflow", 3)
        made = [
            name
            for topic, group in pairs
            for own, sharded in [(one.of(topic, group), many.of(topic, group))]
            for name in (
                own.queue(0),
                sharded.queue(0),
                sharded.queue(2),
                own.retry(5.0),
                own.retry(30.0),
                own.lock(0),
                own.marks(0),
                own.solo,
            )
        ]
        made += {one.dead_letters(topic) for topic, _ in pairs}
        assert len({*made}) == len(made)
        assert max(map(len, made)) <= 255

    def test_addresses_and_topics_are_distinguished(self) -> None:
        names = Names("protoflow", 1)
        assert names.route("orders") == ("protoflow", "orders")
        assert names.route(names.of("t", "g").address) == ("protoflow/+retry", "protoflow/t/g")
        assert (
            names.group_of("protoflow/t/g/shard-1") == names.group_of("protoflow/t/g") == ("t", "g")
        )
        assert names.group_of("protoflow/t..g..dead") is None


class TestMessages:
    @pytest.mark.parametrize("key", [None, b"", b"k", b"\xff\0", "ключ".encode()])
    @pytest.mark.parametrize("payload", [None, b"", b"x" * 1000])
    def test_come_as_they_went(self, key: bytes | None, payload: bytes | None) -> None:
        metadata = {"ce_type": "a.B", "content-type": "application/protobuf", "ü": "ключ", "e": ""}
        sent = Message(id="1", topic="t", payload=payload, key=key, metadata=metadata)
        message, written = over_the_wire(sent, chunk=128 + 300)
        assert (message.id, message.payload, message.key) == ("1", payload, key)
        assert message.metadata == {"ce_specversion": "1.0", **metadata}
        assert written.message_id == "1"
        assert written.message_type == "a.B"
        assert written.content_type == "application/protobuf"
        assert written.delivery_mode == 2

    def test_long_ids_travel_in_the_header_alone(self) -> None:
        message, written = over_the_wire(Message(id="i" * 300, topic="t", payload=b""))
        assert message.id == "i" * 300
        assert written.message_id is None

    def test_a_header_name_beyond_255_bytes_is_refused(self) -> None:
        with pytest.raises(ValueError, match="name of a header"):
            over_the_wire(Message(id="1", topic="t", payload=b"", metadata={"n" * 256: "v"}))

    def test_native_values_are_read_and_kept(self) -> None:
        moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        native: dict[str, Any] = {
            "count": 7,
            "big": 2**40,
            "ratio": 0.5,
            "flag": True,
            "nothing": None,
            "at": moment,
            "raw": bytearray(b"\xff\0"),
            "list": ["a", 1, {"b": "c"}],
            "cloudEvents:type": "a.B",
            "cloudEvents_time": moment,
            "text": "plain",
        }
        read = came(
            headers=native, message_id="m", priority=3, reply_to="r", correlation_id="c",
            app_id="a", message_type="order.placed", timestamp=moment,
        )  # fmt: skip
        message, _ = decode("t", read, b"", _OWNER)
        assert message.id == "m"
        assert message.metadata["ce_type"] == "a.B"
        assert message.metadata["ce_time"] == "2026-01-02T03:04:05Z"
        assert message.metadata["count"] == "7"
        assert message.metadata["flag"] == "true"
        again, republished = over_the_wire(message)
        assert republished.headers is not None
        assert republished.timestamp == moment
        assert republished.message_type == "a.B"  # the attribute goes before the property
        for name in ("count", "big", "ratio", "flag", "nothing", "at", "text"):
            assert republished.headers[name] == native[name]
        assert bytes(republished.headers["raw"]) == b"\xff\0"  # type: ignore[arg-type]
        assert isinstance(republished.headers["list"], list)
        assert (republished.priority, republished.reply_to) == (3, "r")
        assert (republished.correlation_id, republished.app_id) == ("c", "a")
        assert again.metadata["ce_time"] == message.metadata["ce_time"]

    def test_metadata_goes_over_native_headers(self) -> None:
        message, _ = decode("t", came(headers={"n": 1, "m": 2}), b"", _OWNER)
        changed = {**message.metadata, "n": "9"}
        sent = Message(id="1", topic="t", payload=b"", metadata=changed, headers=message.headers)
        _, written = over_the_wire(sent)
        assert written.headers is not None
        assert (written.headers["n"], written.headers["m"]) == ("9", 2)

    def test_our_own_deaths_are_not_reported_on_and_those_of_others_are(self) -> None:
        # If it was passed on, the broker would take a second retry for a cycle, and drop it.
        ours: dict[str, Any] = {"queue": "protoflow/t/g/retry-5s", "reason": "expired"}
        theirs: dict[str, Any] = {"queue": "legacy", "reason": "rejected"}
        read = came(
            headers={
                "x-death": [ours, theirs],
                "x-first-death-queue": ours["queue"],
                "x-first-death-reason": "expired",
                "x-first-death-exchange": "",
                "x-delivery-count": 4,
            }
        )
        message, _ = decode("t", read, b"", _OWNER)
        assert not [name for name in message.metadata if name.startswith("x-")]
        _, republished = over_the_wire(message)
        assert republished.headers is not None
        assert republished.headers["x-death"] == [theirs]
        assert "x-delivery-count" not in republished.headers

    def test_without_an_id_each_gets_one(self) -> None:
        ids = {decode("t", came(), b"", _OWNER)[0].id for _ in range(3)}
        assert len(ids) == 3

    def test_native_is_shown_without_values(self) -> None:
        message, _ = decode("t", came(headers={"n": 1}), b"secret", _OWNER)
        assert isinstance(message.headers, Native)
        assert "secret" not in repr(message)


class TestTopology:
    def test_no_argument_depends_on_a_policy(self) -> None:
        planner = TopologyPlanner(Names("protoflow", 1), (5.0, 30.0), (3, 10))
        shapes: dict[str, Any] = {}
        for ordering, dead_letters in itertools.product(Ordering, ((), ("t..g..dead",))):
            subscription = SubscriptionSettings(
                name="s", topic="t", group="g", ordering=ordering, dead_letter_topics=dead_letters
            )
            plan = planner.plan(Topology(subscriptions=(subscription,)))
            for queue in plan.queues.values():
                assert shapes.setdefault(queue.name, queue.arguments) == queue.arguments
        assert shapes["protoflow/t/g"]["x-delivery-limit"] == 1000
        assert shapes["protoflow/t/g/retry-30s"]["x-message-ttl"] == 30_000
        assert shapes["protoflow/t/g/retry-30s"]["x-dead-letter-exchange"] == "protoflow/+back"
        assert shapes["protoflow/t/g/retry-30s"]["x-dead-letter-routing-key"] == "protoflow/t/g"

    @pytest.mark.parametrize(("version", "limit"), [((3, 10), None), ((4, 0), -1), ((4, 3), -1)])
    def test_dead_letters_are_not_lost_by_looking_at_them(
        self, version: tuple[int, int], limit: int | None
    ) -> None:
        subscription = SubscriptionSettings(
            name="s", topic="t", group="g", dead_letter_topics=("d",)
        )
        plan = TopologyPlanner(Names("protoflow", 1), (5.0,), version).plan(
            Topology(subscriptions=(subscription,))
        )
        (dead_letters,) = [queue for queue in plan.queues.values() if queue.name == "protoflow/d"]
        assert dead_letters.arguments.get("x-delivery-limit") == limit


class TestSettings:
    @pytest.mark.parametrize(
        ("query", "problem"),
        [
            ("prefetsh=3", "did you mean prefetch"),
            ("prefetch=0", "prefetch must be from 1 to 65535"),
            ("shards=0", "shards must be from 1 to 256"),
            ("heartbeat=70000s", "heartbeat"),
            ("tls_key_file=k", "needs tls_cert_file"),
            ("max_hold=0", "max_hold must be positive"),
        ],
    )
    def test_bad_options_are_named(self, query: str, problem: str) -> None:
        with pytest.raises(ConfigError, match=problem):
            make(f"amqp://localhost/?{query}")

    @pytest.mark.parametrize("exchange", ["amq.topic", "", "a/b", "x" * 101])
    def test_bad_exchanges_are_refused(self, exchange: str) -> None:
        with pytest.raises(ConfigError, match="exchange"):
            make("amqp://localhost", options={"exchange": exchange})

    async def test_an_unreachable_server_is_one_error_in_time(self) -> None:
        transport = make("amqp://u:hunter2@127.0.0.1:1/", connect_timeout=0.3)
        with pytest.raises(ConnectionFailedError, match=r"127\.0\.0\.1:1.*0\.3 s") as caught:
            async with asyncio.timeout(5):
                await transport.open()
        chain: BaseException | None = caught.value
        while chain is not None:
            assert "hunter2" not in f"{chain!r} {chain}"
            chain = chain.__cause__ or chain.__context__
        await transport.close()

    def test_authentication_is_a_transport_error_of_its_own(self) -> None:
        assert not issubclass(AuthenticationError, ConnectionFailedError)
