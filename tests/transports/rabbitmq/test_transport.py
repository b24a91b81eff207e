"""RabbitMQ's own quirks, on a real server; the acceptance suite has the rest."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from typing import Any

import pytest
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic
from protoflow import wire
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import (
    AuthenticationError,
    PublishError,
    PublishRefusedError,
    TopologyError,
    TransportError,
)
from protoflow.message import Action, Message, Settlement, SettleResult
from protoflow.transport import (
    LagReader,
    SubscriptionSettings,
    Topology,
    TopologyMode,
    Transport,
    TransportSettings,
)
from protoflow.transports import create

from tests.transports.rabbitmq.harness import Harness, Listener, payloads

pytestmark = pytest.mark.timeout(90)


async def foreign(channel: AbstractChannel, topic: str, body: bytes, **properties: Any) -> None:
    await channel.basic_publish(
        body,
        exchange="protoflow",
        routing_key=topic,
        properties=Basic.Properties(**properties),
        mandatory=True,
    )


class TestPublishing:
    async def test_properties_say_what_other_clients_look_for(
        self, harness: Harness, native: AbstractChannel
    ) -> None:
        topic = harness.topic()
        declared = await native.queue_declare(exclusive=True)
        assert declared.queue is not None
        await native.exchange_declare("protoflow", exchange_type="topic", durable=True)
        await native.queue_bind(declared.queue, "protoflow", topic)
        metadata = {wire.CE_TYPE: "shop.v1.OrderPlaced", wire.CONTENT_TYPE: wire.PROTOBUF}
        await harness.publish(harness.message(topic, b"x", id="7", key=b"k", metadata=metadata))
        found = await native.basic_get(declared.queue, no_ack=True)
        properties = found.header.properties
        assert properties.message_id == "7"
        assert properties.content_type == wire.PROTOBUF
        assert properties.message_type == "shop.v1.OrderPlaced"
        assert properties.delivery_mode == 2
        assert properties.timestamp is not None
        assert properties.headers == {
            "cloudEvents_id": "7",
            "cloudEvents_specversion": "1.0",
            "cloudEvents_type": "shop.v1.OrderPlaced",
            "pf_key": "k",
        }

    async def test_mandatory_messages_that_nobody_keeps_are_errors(self, harness: Harness) -> None:
        topic, nobody = harness.topic(), harness.topic("nobody")
        await harness.join(topic)
        messages = [
            harness.message(topic, b"1", mandatory=True),
            harness.message(nobody, b"2", mandatory=True),
            harness.message(nobody, b"3"),
            harness.message(topic, b"4", mandatory=True),
        ]
        errors = await harness.transport.submit(messages)
        assert [error is None for error in errors] == [True, False, True, True]
        assert isinstance(errors[1], PublishError)
        assert f"no group consumes topic {nobody}" in str(errors[1])

    async def test_one_id_twice_in_flight_is_reported_apart(self, harness: Harness) -> None:
        topic, nobody = harness.topic(), harness.topic("nobody")
        await harness.join(topic)
        messages = [
            harness.message(where, b"x", id="same", mandatory=True)
            for where in (topic, nobody, topic, nobody)
        ]
        errors = await harness.transport.submit(messages)
        assert [error is None for error in errors] == [True, False, True, False]

    async def test_what_nobody_consumes_is_reported_once(
        self, harness: Harness, caplog: pytest.LogCaptureFixture
    ) -> None:
        topic, known = harness.topic("nobody"), harness.topic()
        await harness.join(known)
        for _ in range(3):
            await harness.publish(harness.message(topic), harness.message(known))
        reported = [
            record for record in caplog.records if "without consumers" in record.getMessage()
        ]
        assert len(reported) == 1
        assert topic == reported[0].__dict__["topic"]

    async def test_before_opening_and_after_closing_it_is_an_error_at_once(self, url: str) -> None:
        transport = create(TransportSettings(url=TransportURL.parse(url)))
        message = Message(id="1", topic="t", payload=b"")
        delayed = Message(id="2", topic="t", payload=b"", delay=1.0)
        async with asyncio.timeout(10):
            for word in ("not open", "closed"):
                errors = await transport.submit([message, delayed])
                assert [word in str(error) for error in errors] == [True, True]
                with pytest.raises(TransportError, match=word):
                    await transport.ensure(Topology(), TopologyMode.CREATE)
                await transport.open()
                await transport.close()

    async def test_require_subscriber_makes_all_mandatory(self, url: str) -> None:
        settings = TransportSettings(url=TransportURL.parse(url), require_subscriber=True)
        transport = create(settings)
        await transport.open()
        await transport.ensure(Topology(), TopologyMode.CREATE)
        message = Message(id="1", topic=f"nobody.{uuid.uuid4().hex}", payload=b"")
        assert isinstance((await transport.submit([message]))[0], PublishError)
        await transport.close()

    async def test_a_body_beyond_the_servers_limit_spares_later_ones(
        self, harness: Harness, native: AbstractChannel
    ) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        too_large = bytes(17 * 1024 * 1024)
        [error] = await harness.transport.submit([harness.message(topic, too_large)])
        if error is None:
            pytest.skip("broker: max_message_size is above 17 MiB")
        assert isinstance(error, PublishRefusedError)
        assert "max_message_size" in str(error)
        [again] = await harness.transport.submit([harness.message(topic, too_large)])
        assert isinstance(again, PublishRefusedError)  # learnt: it is not sent any more
        await harness.publish(harness.message(topic, b"small"))
        assert payloads(await member.take(1)) == [b"small"]

    async def test_headers_beyond_a_frame_are_refused_and_the_others_go(
        self, harness: Harness
    ) -> None:
        topic = harness.topic()
        await harness.join(topic)
        messages = [
            harness.message(topic, b"1"),
            harness.message(topic, b"2", metadata={"n": "v" * 140_000}),
            harness.message(topic, b"3", metadata={"n" * 300: "v"}),
            harness.message(topic, b"4"),
        ]
        errors = await harness.transport.submit(messages)
        assert [type(error) for error in errors] == [
            type(None),
            PublishRefusedError,
            PublishRefusedError,
            type(None),
        ]
        assert "frame_max" in str(errors[1])

    async def test_a_missing_exchange_is_an_error_that_heals(self, url: str) -> None:
        settings = TransportSettings(
            url=TransportURL.parse(url), options={"exchange": f"late-{uuid.uuid4().hex[:8]}"}
        )
        transport = create(settings)
        await transport.open()
        message = Message(id="1", topic="t", payload=b"")
        [error] = await transport.submit([message])
        assert isinstance(error, PublishError)
        assert "no exchange" in str(error)
        await transport.ensure(Topology(), TopologyMode.CREATE)
        assert await transport.submit([message]) == [None]
        await transport.close()


class TestForeignMessages:
    async def test_native_headers_never_make_a_message_undecodable(
        self, harness: Harness, native: AbstractChannel
    ) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        deaths = [{"queue": "legacy", "reason": "rejected", "count": 2, "routing-keys": ["a"]}]
        headers = {"x-death": deaths, "n": 5, "cloudEvents:type": "a.B", "text": "t"}
        await foreign(native, topic, b"body", headers=headers, message_id="m-1")
        (delivery,) = await member.take(1)
        message = delivery.message
        assert (message.id, message.payload, message.topic) == ("m-1", b"body", topic)
        assert message.metadata["ce_type"] == "a.B"
        dead_letters = f"{topic}..billing..dead"
        dead = Message(
            id=message.id,
            topic=dead_letters,
            payload=message.payload,
            metadata={**message.metadata, wire.PF_GROUP: "billing"},
            headers=message.headers,
            mandatory=True,
        )
        await harness.publish(dead)
        found = await native.basic_get(f"protoflow/{dead_letters}", no_ack=True)
        kept = found.header.properties.headers
        assert kept is not None
        assert (kept["x-death"], kept["n"], kept["text"]) == (deaths, 5, "t")
        await member.ack(delivery)

    async def test_watermills_id_is_the_id(self, harness: Harness, native: AbstractChannel) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        await foreign(native, topic, b"{}", headers={wire.WATERMILL_ID: "w-1"})
        (delivery,) = await member.take(1)
        assert delivery.message.id == "w-1"


class TestRetries:
    async def test_many_retries_come_back_under_their_topic(
        self, harness: Harness, url: str
    ) -> None:
        # The second retry goes through the queue of the first: no cycle to the broker.
        settings = TransportSettings(url=TransportURL.parse(url), ladder=(0.2, 0.5))
        transport = create(settings)
        await transport.open()
        topic = harness.topic()
        member = await harness.join(topic, transport=transport)
        other = await harness.join(topic, "audit", transport=transport)
        [sent] = await harness.send(topic, b"x", key=b"k")
        for delay in (0.2, 0.2, 0.6, 0.0):
            (delivery,) = await member.take(1)
            assert (delivery.message.id, delivery.message.topic) == (sent.id, topic)
            assert delivery.message.key == b"k"
            assert not [name for name in delivery.message.metadata if name.startswith("x-")]
            deferred = member.subscription.defer(delivery.message, delay)
            assert deferred is not None
            assert deferred.mandatory
            started = time.monotonic()
            await harness.publish(deferred, transport=transport)
            await member.ack(delivery)
        (delivery,) = await member.take(1)
        assert time.monotonic() - started < 2
        await member.ack(delivery)
        assert len(await other.drain()) == 1
        await transport.close()


class TestDelays:
    async def test_each_delay_is_kept_whatever_the_others_are(
        self, harness: Harness, native: AbstractChannel
    ) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        other = await harness.join(topic, "audit")
        delays = [3.0, 0.05, 1.7, 0.4, 0.9]
        started = time.monotonic()
        await harness.publish(
            *(harness.message(topic, b"%.2f" % delay, key=b"k", delay=delay) for delay in delays)
        )
        for delay in sorted(delays):
            (delivery,) = await member.take(1)
            assert delivery.message.payload == b"%.2f" % delay
            assert delay <= time.monotonic() - started < delay + 2.0
            assert (delivery.message.topic, delivery.message.key) == (topic, b"k")
            assert not [name for name in delivery.message.metadata if name.startswith("x-")]
            await member.ack(delivery)
        assert len(await other.drain()) == len(delays)

    async def test_what_nobody_wants_when_it_is_due_blocks_nothing(self, harness: Harness) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        nobody = harness.topic("nobody")
        await harness.publish(*(harness.message(nobody, b"x", delay=0.1) for _ in range(100)))
        await harness.publish(harness.message(topic, b"wanted", delay=0.1))
        assert payloads(await member.take(1)) == [b"wanted"]

    async def test_too_long_a_delay_is_refused(self, harness: Harness) -> None:
        limit = harness.capabilities.max_delay
        assert limit is not None
        assert limit > 70 * 86400
        [error] = await harness.transport.submit([harness.message("t", b"x", delay=limit + 1)])
        assert isinstance(error, PublishRefusedError)

    async def test_the_queues_must_be_there_where_they_may_not_be_made(self, url: str) -> None:
        exchange = f"verified-{uuid.uuid4().hex[:8]}"
        settings = TransportSettings(url=TransportURL.parse(url), options={"exchange": exchange})
        transport = create(settings)
        await transport.open()
        message = Message(id="1", topic="t", payload=b"", delay=1.0)
        [error] = await transport.submit([message])
        assert isinstance(error, PublishError)
        assert "topology mode create" in str(error)
        await transport.ensure(Topology(), TopologyMode.CREATE)
        assert await transport.submit([message]) == [None]
        await transport.close()


class TestTopology:
    def settings(self, topic: str, **fields: Any) -> SubscriptionSettings:
        return SubscriptionSettings(
            name="s", topic=topic, group="g", dead_letter_topics=(f"{topic}..g..dead",), **fields
        )

    async def test_verify_names_everything_missing_and_makes_nothing(
        self, harness: Harness
    ) -> None:
        topology = Topology(subscriptions=(self.settings(harness.topic()),))
        for _ in range(2):
            with pytest.raises(TopologyError) as caught:
                await harness.transport.ensure(topology, TopologyMode.VERIFY)
            missing = str(caught.value).splitlines()
            assert len(missing) == 8  # queue, five rungs, solo queue, dead letters
            assert all("missing" in line and "topology mode create" in line for line in missing)
        await harness.transport.ensure(topology, TopologyMode.CREATE)
        await harness.transport.ensure(topology, TopologyMode.VERIFY)

    @pytest.mark.parametrize("mode", [TopologyMode.VERIFY, TopologyMode.CREATE])
    async def test_differences_are_reported_and_not_fixed(
        self, harness: Harness, native: AbstractChannel, mode: TopologyMode
    ) -> None:
        topic = harness.topic()
        queues = [f"protoflow/{topic}/g", f"protoflow/{topic}..g..dead"]
        for queue in queues:
            await native.queue_declare(queue, durable=True)  # classic
        if mode is TopologyMode.VERIFY:
            for seconds in ("5s", "30s", "120s", "600s", "3600s"):
                await native.queue_declare(f"protoflow/{topic}/g/retry-{seconds}", durable=True)
        topology = Topology(subscriptions=(self.settings(topic),))
        with pytest.raises(TopologyError) as caught:
            await harness.transport.ensure(topology, mode)
        assert all(f"queue {queue} differs" in str(caught.value) for queue in queues)

    async def test_a_missing_queue_stops_the_subscription_at_start(self, harness: Harness) -> None:
        with pytest.raises(TopologyError, match="missing"):
            await harness.transport.subscribe(self.settings(harness.topic()), Listener())

    async def test_another_ordering_needs_no_other_queue(self, harness: Harness) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        await member.subscription.stop()
        await harness.send(topic, b"x")
        ordered = await harness.join(topic, ordering=Ordering.PER_KEY)
        assert payloads(await ordered.take(1)) == [b"x"]

    async def test_a_queue_that_was_deleted_is_made_again(
        self, harness: Harness, native: AbstractChannel
    ) -> None:
        topic = harness.topic()
        member = await harness.join(topic)
        await native.queue_delete(f"protoflow/{topic}/billing")
        async with asyncio.timeout(20):
            while not member.listener.healthy or not member.listener.healthy[-1]:
                await asyncio.sleep(0.1)
        assert False in member.listener.healthy
        await harness.send(topic, b"x")
        assert payloads(await member.take(1)) == [b"x"]


class TestShards:
    async def test_keys_keep_their_order_and_all_shards_are_used(
        self, harness: Harness, url: str
    ) -> None:
        transport = await harness.connect(shards=4)
        topic = harness.topic()
        member = await harness.join(
            topic, transport=transport, ordering=Ordering.PER_KEY, max_in_flight=2000
        )
        messages = [
            harness.message(topic, b"%d" % number, key=b"key-%d" % (number % 40))
            for number in range(400)
        ]
        await harness.publish(*messages, harness.message(topic, b"no key"))
        taken = await member.take(401)
        by_key: dict[bytes | None, list[int]] = {}
        for delivery in taken:
            if delivery.message.key is not None:
                by_key.setdefault(delivery.message.key, []).append(
                    int(delivery.message.payload or 0)
                )
        assert all(numbers == sorted(numbers) for numbers in by_key.values())
        assert len({delivery.shard for delivery in taken}) == 4
        retried = member.subscription.defer(taken[0].message, 0.0)
        assert retried is not None
        await member.ack(*taken)
        await harness.publish(retried, transport=transport)
        (again,) = await member.take(1)
        assert again.shard == taken[0].shard
        await member.ack(again)

    async def test_another_number_of_shards_is_refused(self, harness: Harness) -> None:
        topic = harness.topic()
        await harness.join(topic, transport=await harness.connect(shards=3))
        for shards in (1, 2, 4):
            with pytest.raises(TopologyError, match="a number of shards other"):
                await harness.join(topic, transport=await harness.connect(shards=shards))


class TestOrder:
    async def test_the_next_process_takes_over_when_the_first_stops(self, harness: Harness) -> None:
        topic = harness.topic()
        first = await harness.join(topic, ordering=Ordering.PER_PARTITION)
        second = await harness.join(
            topic, transport=await harness.connect(), ordering=Ordering.PER_PARTITION
        )
        await harness.send(topic, *(b"%d" % number for number in range(6)))
        one, two = await first.take(2, most=1)
        await second.nothing()
        await first.ack(one)
        await first.release(two)
        await first.subscription.stop()
        assert payloads(await second.take(5)) == [b"1", b"2", b"3", b"4", b"5"]

    async def test_a_long_prefetch_goes_back_in_order(self, harness: Harness) -> None:
        # basic.nack of more than 32 messages shuffles them in RabbitMQ 3.10.
        topic = harness.topic()
        first = await harness.join(topic, ordering=Ordering.PER_KEY)
        await harness.send(topic, *(b"%d" % number for number in range(200)), key=b"k")
        taken = await first.take(120)
        await asyncio.gather(*(first.ack(delivery) for delivery in taken[:90]))
        await first.release(*taken[90:])
        await first.subscription.stop()
        second = await harness.join(topic, ordering=Ordering.PER_KEY)
        again = await second.take(110)
        assert payloads(again) == [b"%d" % number for number in range(90, 200)]

    async def test_what_is_released_comes_before_what_was_prefetched(
        self, harness: Harness
    ) -> None:
        topic = harness.topic()
        member = await harness.join(topic, ordering=Ordering.PER_KEY)
        await harness.send(topic, b"0", b"1", b"2", key=b"k")
        first, second = await member.take(2)
        await member.release(second)
        await member.release(first)
        again = await member.take(3)
        assert payloads(again) == [b"0", b"1", b"2"]
        assert [delivery.deliveries for delivery in again] == [1, 1, 1]
        assert await member.settle(Settlement(first)) == [SettleResult.LOST]
        await member.ack(*again)


class TestSettling:
    async def test_out_of_order_and_mixed(self, harness: Harness, native: AbstractChannel) -> None:
        topic = harness.topic()
        member = await harness.join(topic, max_in_flight=50)
        await harness.send(topic, *(b"%d" % number for number in range(50)))
        taken = await member.take(50)
        back = {7, 8, 20, 49}
        order = sorted(range(50), key=lambda number: (number * 7) % 50)
        results = await asyncio.gather(
            *(
                member.settle(
                    Settlement(taken[number], Action.RELEASE if number in back else Action.ACK)
                )
                for number in order
            )
        )
        assert results == [[SettleResult.DONE]] * 50
        again = await member.take(4)
        assert {delivery.message.id for delivery in again} == {taken[n].message.id for n in back}
        await member.ack(*again)
        assert await member.settle(Settlement(taken[0])) == [SettleResult.LOST]
        await member.subscription.stop()
        declared = await native.queue_declare(f"protoflow/{topic}/billing", passive=True)
        assert declared.message_count == 0

    async def test_what_is_held_too_long_is_given_up_before_the_server_does(
        self, harness: Harness
    ) -> None:
        topic = harness.topic()
        transport = await harness.connect(max_hold=1.0)
        member = await harness.join(topic, transport=transport)
        await harness.send(topic, b"x")
        (delivery,) = await member.take(1)
        (again,) = await member.take(1)
        assert again.message.id == delivery.message.id
        assert member.listener.lost == [delivery]
        assert await member.settle(Settlement(delivery)) == [SettleResult.LOST]
        await member.ack(again)


class TestDeadLetters:
    async def test_the_servers_own_limit_ends_in_the_dead_letters(
        self, harness: Harness, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("protoflow.transports.rabbitmq.planner.DELIVERY_LIMIT", 2)
        topic = harness.topic()
        member = await harness.join(topic)
        await harness.send(topic, b"killer")
        dead_letters, transport = f"{topic}..billing..dead", harness.transport
        for count in range(3):
            (delivery,) = await member.take(1)
            assert delivery.deliveries == count + 1
            await member.subscription.stop()
            if count < 2:
                member = await harness.join(topic)
        async with asyncio.timeout(10):
            while not await dead_letters_of(transport).count(dead_letters):
                await asyncio.sleep(0.05)
        [dead_letter] = await dead_letters_of(transport).list(dead_letters)
        assert dead_letter.message.payload == b"killer"
        assert await dead_letters_of(transport).replay(dead_letters, [dead_letter.message.id]) == 1
        member = await harness.join(topic)
        (delivery,) = await member.take(1)
        assert (delivery.message.topic, delivery.deliveries) == (topic, 1)
        await member.ack(delivery)

    async def test_looking_often_loses_nothing_and_keeps_the_order(self, harness: Harness) -> None:
        topic = harness.topic()
        await harness.join(topic)
        dead_letters, transport = f"{topic}..billing..dead", harness.transport
        sent = await harness.send(dead_letters, *(b"%d" % number for number in range(5)))
        for _ in range(25):
            listed = await dead_letters_of(transport).list(dead_letters, limit=3)
            assert [dead_letter.message.id for dead_letter in listed] == [m.id for m in sent[:3]]
            assert (
                await dead_letters_of(transport).count(dead_letters) == 5
            )  # they are back at once
        assert await dead_letters_of(transport).count(dead_letters) == 5
        assert await dead_letters_of(transport).purge(dead_letters, [sent[1].id]) == 1
        assert await dead_letters_of(transport).purge(dead_letters) == 4

    async def test_dead_letters_that_another_tool_holds_are_not_reported_as_none(
        self, harness: Harness, native: AbstractChannel
    ) -> None:
        topic = harness.topic()
        await harness.join(topic)
        dead_letters = f"{topic}..billing..dead"
        await harness.send(dead_letters, b"0")
        transport: Any = harness.transport
        queue = transport.dead_letters.names.dead_letters(dead_letters)
        held: asyncio.Queue[Any] = asyncio.Queue()
        consumer = await native.basic_consume(queue, held.put)
        message = await asyncio.wait_for(held.get(), 10)
        with pytest.raises(TransportError, match="held by another tool"):
            await dead_letters_of(harness.transport).list(dead_letters)
        await native.basic_cancel(consumer.consumer_tag or "")
        await native.basic_reject(message.delivery_tag or 0, requeue=True)
        while True:
            with contextlib.suppress(TransportError):  # the queue forgets its consumer a bit later
                if await dead_letters_of(harness.transport).list(dead_letters):
                    break
            await asyncio.sleep(0.01)


class TestOthers:
    async def test_broadcast_reaches_every_process_and_goes_with_it(
        self, harness: Harness, native: AbstractChannel
    ) -> None:
        topic = harness.topic()
        one = await harness.join(topic, broadcast=True)
        two = await harness.join(topic, transport=await harness.connect(), broadcast=True)
        await harness.send(topic, b"x")
        for member in (one, two):
            (delivery,) = await member.take(1)
            assert member.subscription.defer(delivery.message, 9.0) is None
            started = time.monotonic()
            nack = Settlement(delivery, Action.NACK, delay=0.5, failures=1)
            assert await member.settle(nack) == [SettleResult.DONE]
            (again,) = await member.take(1)
            assert time.monotonic() - started >= 0.5
            await member.ack(again)

    async def test_lag_counts_what_waits_anywhere(self, harness: Harness, url: str) -> None:
        topic, transport = harness.topic(), harness.transport
        assert isinstance(transport, LagReader)
        member = await harness.join(topic, max_in_flight=2)
        await harness.send(topic, *(b"%d" % number for number in range(5)))
        taken = await member.take(2)
        deferred = member.subscription.defer(taken[0].message, 30.0)
        assert deferred is not None
        await harness.publish(deferred)
        await member.ack(taken[0])
        async with asyncio.timeout(10):
            while (await transport.lag(topic, "billing")).messages != 5:
                await asyncio.sleep(0.05)
        with pytest.raises(TopologyError, match="no queue"):
            await transport.lag(topic, "nobody")

    @pytest.mark.parametrize("path", ["/", "/no-such-vhost"])
    async def test_bad_credentials_are_reported_at_once_and_not_shown(
        self, url: str, path: str
    ) -> None:
        parsed = TransportURL.parse(url)
        host, port = parsed.hosts[0]
        password = "hunter2" if path == "/" else "guest"
        bad = TransportURL.parse(f"amqp://guest:{password}@{host}:{port}{path}")
        transport: Transport = create(TransportSettings(url=bad))
        started = time.monotonic()
        with pytest.raises(AuthenticationError) as caught:
            await transport.open()
        assert time.monotonic() - started < 5
        assert "hunter2" not in f"{caught.value!r} {caught.value.__cause__!r}"
        await transport.close()
