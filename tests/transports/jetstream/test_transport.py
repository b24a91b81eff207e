"""What is special about JetStream: its names, streams, durables, pins and schedules."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nats
import pytest
from protoflow import transports, wire
from protoflow.config.url import TransportURL
from protoflow.contract.spec import Ordering, Start
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import (
    ConfigError,
    ConnectionFailedError,
    DeadLetterNotFoundError,
    PublishError,
    PublishRefusedError,
    TopologyError,
    TransportError,
)
from protoflow.message import Action, Settlement, SettleResult
from protoflow.testing import Listener
from protoflow.transport import (
    LagReader,
    Topology,
    TopologyMode,
    Transport,
    TransportSettings,
)
from protoflow.transports.nats.names import JetStreamNames

from tests.brokers import start_own
from tests.brokers.base import RunningBroker
from tests.brokers.nats import NatsBroker
from tests.faults.proxy import FaultProxy
from tests.transports.nats.harness import (
    MEGABYTE,
    ack,
    join,
    make,
    message,
    nothing,
    opened,
    payloads,
    publish,
    settings_of,
    take,
    topic,
)


def jetstream(broker: RunningBroker) -> str:
    return broker.url.replace("nats://", "jetstream://")


def restart(broker: RunningBroker) -> RunningBroker:
    assert broker.directory is not None
    return NatsBroker().start(broker.directory, int(broker.details["port"]))


async def api(url: str, subject: str, request: dict[str, Any] | None = None) -> dict[str, Any]:
    client = await nats.connect(url.replace("jetstream://", "nats://"))
    try:
        payload = json.dumps(request).encode() if request is not None else b""
        reply = await client.request(f"$JS.API.{subject}", payload, timeout=5)
    finally:
        await client.close()
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


# Names and topology


async def test_streams_and_durables_are_as_promised(url: str, transport: Transport) -> None:
    name = topic()
    await join(transport, name, "shop.v1.Billing", lease=20.0)
    names = JetStreamNames("protoflow")
    stream = (await api(url, f"STREAM.INFO.{names.stream(name)}"))["config"]
    assert (stream["retention"], stream["storage"], stream["max_age"]) == ("limits", "file", 0)
    group = (await api(url, f"STREAM.INFO.{names.group_stream('shop.v1.Billing')}"))["config"]
    assert group["retention"] == "workqueue"
    durable = await api(url, f"CONSUMER.INFO.{names.stream(name)}.shop_v1_Billing")
    assert durable["config"]["max_deliver"] == -1
    assert durable["config"]["ack_wait"] == 20_000_000_000


async def test_all_differences_are_reported_at_once_and_nothing_is_changed(
    url: str, transport: Transport
) -> None:
    name = topic()
    # A group of its own: the server is shared, and other cases made that of `billing`.
    settings = replace(settings_of(name), group=f"group-{name}")
    topology = Topology(subscriptions=(settings,))
    with pytest.raises(TopologyError) as caught:
        await transport.ensure(topology, TopologyMode.VERIFY)
    assert str(caught.value).count("is missing; start once with topology mode create") == 5
    await transport.ensure(topology, TopologyMode.CREATE)
    await transport.ensure(topology, TopologyMode.VERIFY)
    async with opened(url, max_age="7d", duplicate_window="5m") as other:
        for mode in (TopologyMode.VERIFY, TopologyMode.CREATE):
            with pytest.raises(TopologyError) as caught:
                await other.ensure(Topology(subscriptions=(replace(settings, lease=7.0),)), mode)
            text = str(caught.value)
            assert "ack_wait is 30000000000, not 7000000000" in text
            assert text.count("duplicate_window is 120000000000, not 300000000000") == 3
    await transport.ensure(topology, TopologyMode.VERIFY)


async def test_another_start_does_not_conflict_with_a_position(transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    await subscription.stop()
    await join(transport, name, start=Start.LATEST)


async def test_a_stream_of_somebody_else_in_the_way_is_named(url: str) -> None:
    name = topic()
    await api(url, "STREAM.CREATE.MINE", {"name": "MINE", "subjects": ["mine.>"]})
    async with opened(url, prefix="mine") as transport:
        with pytest.raises(TopologyError, match="overlap"):
            await transport.ensure(Topology(topics=(name,)), TopologyMode.CREATE)
        (error,) = await transport.submit([message(name)])
        assert isinstance(error, PublishError)
        assert "overlap" in str(error)


async def test_latest_and_earliest(transport: Transport) -> None:
    name = topic()
    await publish(transport, message(name, b"before"))
    late, _ = await join(transport, name, "late", start=Start.LATEST)
    early, _ = await join(transport, name, "early")
    await publish(transport, message(name, b"after"))
    assert payloads(await take(late, 1)) == [b"after"]
    assert payloads(await take(early, 2)) == [b"before", b"after"]


# Publishing


async def test_a_deduplication_id_is_kept_once(transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    twice = [message(name, b"%d" % n, deduplication_id="same") for n in range(2)]
    await publish(transport, *twice)
    (delivery,) = await take(subscription, 1)
    assert delivery.message.payload == b"0"
    await nothing(subscription)


async def test_headers_count_against_max_payload(transport: Transport) -> None:
    limit = transport.capabilities.max_message_bytes or 0
    large = message(topic(), bytes(limit - 100), metadata={"a": "x" * 200})
    (error,) = await transport.submit([large])
    assert isinstance(error, PublishRefusedError)
    assert "max_payload" in str(error)


async def test_without_a_stream_publishing_is_an_error_unless_streams_may_be_made(
    transport: Transport,
) -> None:
    await publish(transport, message(topic()))
    await transport.ensure(Topology(), TopologyMode.NONE)
    (error,) = await transport.submit([message(topic())])
    assert isinstance(error, PublishError)
    assert "no stream stores it" in str(error)


async def test_a_stream_that_was_deleted_is_made_again(url: str, transport: Transport) -> None:
    name = topic()
    await publish(transport, message(name))
    await api(url, f"STREAM.DELETE.{JetStreamNames('protoflow').stream(name)}")
    await publish(transport, message(name))


async def test_others_without_headers_can_publish(url: str, transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    client = await nats.connect(url.replace("jetstream://", "nats://"))
    try:
        await client.publish(f"protoflow.{name}", b"x")
        await client.publish(f"protoflow.{name}", b"y", headers={"Nats-Msg-Id": "theirs"})
        first, second = await take(subscription, 2)
    finally:
        await client.close()
    assert first.message.id == f"{JetStreamNames('protoflow').stream(name)}:1"
    assert second.message.id == "theirs"


# Retries and schedules


async def test_a_deferred_message_comes_back_to_its_group_alone(transport: Transport) -> None:
    name = topic()
    billing, _ = await join(transport, name, "billing")
    mailing, _ = await join(transport, name, "mailing")
    sent = message(name, metadata={"a": "b"}, key=b"k", deduplication_id="1")
    await publish(transport, sent)
    (delivery,) = await take(billing, 1)
    await ack(mailing, *await take(mailing, 1))
    metadata = {**delivery.message.metadata, wire.PF_ATTEMPT: "1", wire.PF_GROUP: "billing"}
    failed = replace(delivery.message, metadata=metadata, deduplication_id="1:billing:r1")
    deferred = billing.defer(failed, 0.7)
    assert deferred is not None
    started = time.monotonic()
    await publish(transport, deferred)
    await ack(billing, delivery)
    (again,) = await take(billing, 1)
    assert time.monotonic() - started >= 0.65
    assert (again.message.id, again.message.topic, again.message.key) == (sent.id, name, b"k")
    assert again.message.metadata[wire.PF_ATTEMPT] == "1"
    assert again.message.metadata["a"] == "b"
    assert not [key for key in again.message.metadata if key.startswith("Nats-")]
    assert (again.shard, again.position) != (delivery.shard, delivery.position)
    await ack(billing, again)
    await nothing(mailing)


async def test_a_stream_keeps_delayed_messages_from_the_first_one_on(
    url: str, transport: Transport
) -> None:
    name = topic()
    names = JetStreamNames("protoflow")
    stream = names.stream(name)
    subscription, _ = await join(transport, name)
    before = (await api(url, f"STREAM.INFO.{stream}"))["config"]
    assert not before.get("allow_msg_schedules")
    assert not before["allow_rollup_hdrs"]
    topology = Topology(subscriptions=(settings_of(name),))
    async with opened(url) as other:
        await other.ensure(topology, TopologyMode.VERIFY)
        late = message(name, b"late", delay=0.5)
        (plain, delayed) = await other.submit([message(name, b"plain"), late])
        assert plain is None
        assert type(delayed) is PublishError
        assert "with nats stream edit" in str(delayed)
    messages = [message(name, b"%d" % n, delay=0.5 * (n % 2)) for n in range(4)]
    await publish(transport, *messages)
    after = (await api(url, f"STREAM.INFO.{stream}"))["config"]
    assert after["allow_msg_schedules"]
    assert payloads(await take(subscription, 5)) == [b"plain", b"0", b"2", b"1", b"3"]
    async with opened(url) as other:
        for mode in (TopologyMode.VERIFY, TopologyMode.CREATE):
            await other.ensure(topology, mode)
        await publish(other, message(name, b"later", delay=0.2))
    assert payloads(await take(subscription, 1)) == [b"later"]


async def test_lag_counts_what_waits_for_a_retry(transport: Transport) -> None:
    name = topic()
    assert isinstance(transport, LagReader)
    subscription, _ = await join(transport, name)
    await publish(transport, *[message(name) for _ in range(5)])
    async with asyncio.timeout(5):  # the server counts a moment later
        while (await transport.lag(name, "billing")).messages != 5:
            await asyncio.sleep(0.02)
    first, *rest = await take(subscription, 5)
    deferred = subscription.defer(first.message, 60.0)
    assert deferred is not None
    await publish(transport, deferred)
    await ack(subscription, first, *rest[:2])
    async with asyncio.timeout(5):
        while (await transport.lag(name, "billing")).messages != 3:
            await asyncio.sleep(0.02)


# Dead letters


def dead_letter(name: str, number: int) -> Any:
    return message(
        f"{name}..billing..dead",
        b"%d" % number,
        id=f"id-{number}",
        metadata={
            wire.PF_GROUP: "billing",
            wire.PF_ORIGINAL_TOPIC: name,
            wire.PF_ATTEMPT: "5",
            wire.PF_DEAD_LETTER: "true",
            wire.PF_ERROR_MESSAGE: "first\nsecond",
            "own": "kept",
        },
    )


async def test_dead_letters_are_listed_replayed_and_purged(transport: Transport) -> None:
    name = topic()
    dead = f"{name}..billing..dead"
    billing, _ = await join(transport, name, "billing")
    mailing, _ = await join(transport, name, "mailing")
    await publish(transport, *[dead_letter(name, number) for number in range(5)])
    assert await dead_letters_of(transport).count(dead) == 5
    listed = await dead_letters_of(transport).list(dead, limit=3)
    assert [item.message.id for item in listed] == ["id-0", "id-1", "id-2"]
    shown = await dead_letters_of(transport).show(dead, "id-3")
    assert shown.message.payload == b"3"
    assert shown.message.metadata[wire.PF_ERROR_MESSAGE] == "first\nsecond"
    assert abs(shown.time - time.time()) < 60
    with pytest.raises(DeadLetterNotFoundError):
        await dead_letters_of(transport).show(dead, "id-9")
    assert await dead_letters_of(transport).replay(dead, ["id-1"]) == 1
    (again,) = await take(billing, 1)
    assert (again.message.id, again.message.topic) == ("id-1", name)
    own = {key for key in again.message.metadata if not key.startswith("ce_")}
    assert own == {"own"}
    await ack(billing, again)
    await nothing(mailing)
    assert await dead_letters_of(transport).replay(dead, ["id-2"], to_origin=True) == 1
    for member in (billing, mailing):
        assert payloads(await take(member, 1)) == [b"2"]
    with pytest.raises(DeadLetterNotFoundError, match="id-1"):
        await dead_letters_of(transport).purge(dead, ["id-0", "id-1"])
    assert await dead_letters_of(transport).purge(dead, ["id-0"]) == 1
    assert await dead_letters_of(transport).count(dead) == 2
    assert await dead_letters_of(transport).replay(dead) == 2
    assert sorted(payloads(await take(billing, 2))) == [b"3", b"4"]
    await publish(transport, dead_letter(name, 7))
    assert await dead_letters_of(transport).purge(dead) == 1
    assert await dead_letters_of(transport).count(dead) == 0


async def test_replays_are_no_duplicates_of_each_other(transport: Transport) -> None:
    name = topic()
    billing, _ = await join(transport, name)
    for _ in range(2):
        await publish(transport, dead_letter(name, 1))
        assert await dead_letters_of(transport).replay(f"{name}..billing..dead") == 1
        await ack(billing, *await take(billing, 1))


# Bounds


async def test_in_flight_is_bounded(transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name, max_in_flight=3)
    await publish(transport, *[message(name) for _ in range(10)])
    batch = await take(subscription, 3)
    await nothing(subscription)
    await ack(subscription, *batch[:2])
    assert len(await take(subscription, 2)) == 2
    await nothing(subscription)


async def test_what_one_process_does_not_take_is_left_for_the_other(url: str) -> None:
    name = topic()
    async with opened(url) as one, opened(url) as two:
        first, _ = await join(one, name, max_in_flight=2)
        await publish(one, *[message(name) for _ in range(6)])
        await take(first, 2)
        second, _ = await join(two, name)
        assert len(await take(second, 4)) == 4


async def test_many_small_requests_add_up(url: str) -> None:
    name = topic()
    async with opened(url, fetch_batch=7, fetch_expires=1.0) as transport:
        subscription, _ = await join(transport, name)
        for _ in range(3):
            await publish(transport, *[message(name) for _ in range(40)])
            await ack(subscription, *await take(subscription, 40))
            await asyncio.sleep(1.2)  # beyond the expiry of what was asked for
        await nothing(subscription)


# Order


async def test_shards_spread_keys_and_each_keeps_its_order(url: str) -> None:
    name = topic()
    async with opened(url, shards=4) as transport:
        subscription, _ = await join(transport, name, ordering=Ordering.PER_KEY)
        sent = [message(name, b"%d" % n, key=b"k%d" % (n % 8)) for n in range(80)]
        await publish(transport, *sent)
        batch = await take(subscription, 80)
        assert len({delivery.shard for delivery in batch}) > 1
        for key in range(8):
            lane = [d for d in batch if d.message.key == b"k%d" % key]
            assert payloads(lane) == [b"%d" % n for n in range(key, 80, 8)]
            assert len({delivery.shard for delivery in lane}) == 1
        await ack(subscription, *batch)
    async with opened(url, shards=2) as other:
        with pytest.raises(TopologyError, match="subjects is"):
            await other.ensure(Topology(topics=(name,)), TopologyMode.VERIFY)


async def test_a_lane_that_waits_lets_the_others_pass(transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name, ordering=Ordering.PER_KEY)
    sent = [message(name, b"%d" % n, key=b"k%d" % (n % 2)) for n in range(4)]
    await publish(transport, *sent)
    zero, one, two, three = await take(subscription, 4)
    await subscription.settle(
        [
            Settlement(zero, Action.NACK, delay=1.0, failures=1),
            Settlement(one, Action.RELEASE),
            Settlement(two, Action.RELEASE),
        ]
    )
    await nothing(subscription, 0.3)  # 1 waits for 3, which is still handed out
    await subscription.settle([Settlement(three, Action.RELEASE)])
    assert payloads(await take(subscription, 2, within=0.5)) == [b"1", b"3"]
    again = await take(subscription, 2)
    assert payloads(again) == [b"0", b"2"]
    assert [delivery.failures for delivery in again] == [1, 0]
    assert await subscription.settle([Settlement(zero)]) == [SettleResult.LOST]
    await ack(subscription, *again)


async def test_the_order_survives_the_death_of_a_process(url: str) -> None:
    """What the dead one held comes before everything newer, once its lease is over."""
    name = topic()
    one = make(url)
    await one.open()
    first, _ = await join(one, name, ordering=Ordering.PER_KEY, lease=2.0)
    await publish(one, *[message(name, b"%d" % n, key=b"k") for n in range(6)])
    taken = await take(first, 4)
    await ack(first, taken[0])
    async with opened(url) as two:
        second, _ = await join(two, name, ordering=Ordering.PER_KEY, lease=2.0)
        await nothing(second)
        await one.close()  # without stop: as if it had died
        await publish(two, *[message(name, b"%d" % n, key=b"k") for n in range(6, 10)])
        batch = await take(second, 9, within=20)
        assert payloads(batch) == [b"%d" % n for n in range(1, 10)]
        await ack(second, *batch)


async def test_a_stop_hands_over_at_once_and_in_order(url: str) -> None:
    name = topic()
    async with opened(url) as one, opened(url) as two:
        first, _ = await join(one, name, ordering=Ordering.PER_KEY)
        await publish(one, *[message(name, b"%d" % n, key=b"k") for n in range(6)])
        held, *_ = await take(first, 1)
        second, _ = await join(two, name, ordering=Ordering.PER_KEY)
        await first.stop()
        await nothing(second)  # the first one's handler still runs
        await ack(first, held)
        batch = await take(second, 5, within=5)
        assert payloads(batch) == [b"%d" % n for n in range(1, 6)]


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_what_comes_after_a_stop_is_lent_to_nobody(url: str, ordering: Ordering) -> None:
    async with opened(url) as one, opened(url) as two:
        for _ in range(5):
            name = topic()
            (first, _) = await join(one, name, ordering=ordering, lease=30.0)
            await first.stop()
            await publish(two, message(name, b"1"))
            (second, _) = await join(two, name, ordering=ordering, lease=30.0)
            await ack(second, *await take(second, 1, within=10))
            await second.stop()


async def test_a_busy_owner_keeps_its_shard(url: str) -> None:
    name = topic()
    async with opened(url, ordered_window=2) as one, opened(url, ordered_window=2) as two:
        first, listener = await join(one, name, ordering=Ordering.PER_KEY, lease=1.0)
        await publish(one, *[message(name, b"%d" % n, key=b"k") for n in range(4)])
        held = await take(first, 2)
        second, _ = await join(two, name, ordering=Ordering.PER_KEY, lease=1.0)
        await nothing(second, 3.5)
        assert (listener.revoked, listener.lost) == ([], [])
        await ack(first, *held)
        assert payloads(await take(first, 2)) == [b"2", b"3"]


# Faults


async def test_a_killed_server_comes_back_with_everything(own: RunningBroker) -> None:
    url = jetstream(own)
    async with opened(url) as transport:
        name = topic()
        subscription, listener = await join(transport, name)
        await publish(transport, *[message(name, b"%d" % n) for n in range(100)])
        batch = await take(subscription, 50)
        own.signal(signal.SIGKILL)
        assert own.process is not None
        own.process.wait()
        late = transport.submit([message(name, b"late", deduplication_id="late")])
        settling = subscription.settle([Settlement(delivery) for delivery in batch])
        await asyncio.sleep(0.5)
        assert transport.health() is not None
        again = restart(own)
        try:
            assert await asyncio.wait_for(late, 10) == [None]
            # It was killed: what it remembers of what it lent is uncertain.
            results = set(await asyncio.wait_for(settling, 10))
            assert results <= {SettleResult.DONE, SettleResult.UNKNOWN}
            settled = {*payloads(batch)}
            missing = {b"%d" % n for n in range(50, 100)} | {b"late"}
            async with asyncio.timeout(40):
                while missing:
                    taken = await subscription.receive(50, MEGABYTE)
                    await subscription.settle([Settlement(delivery) for delivery in taken])
                    missing -= {*payloads(taken)}
                    # What was acknowledged is not run again, even if the server forgot of it.
                    assert not settled & {*payloads(taken)}
            assert [healthy for healthy, _ in listener.health][:1] == [False]
            assert listener.health[-1][0]
            assert transport.health() is None
        finally:
            NatsBroker().stop(again)


async def test_a_frozen_server_loses_nothing(own: RunningBroker) -> None:
    async with opened(jetstream(own), ping_interval=0.3, publish_timeout=1.0) as transport:
        name = topic()
        subscription, listener = await join(transport, name, lease=2.0)
        await publish(transport, *[message(name, b"%d" % n) for n in range(10)])
        batch = await take(subscription, 5)
        own.signal(signal.SIGSTOP)
        await asyncio.sleep(0.1)  # all its threads must have got it
        (error,) = await asyncio.wait_for(transport.submit([message(name)]), 5)
        assert isinstance(error, PublishError)
        async with asyncio.timeout(10):
            while len(listener.lost) < 5:
                await asyncio.sleep(0.05)
        results = await subscription.settle([Settlement(batch[0])])
        assert results == [SettleResult.LOST]
        own.signal(signal.SIGCONT)
        seen: set[bytes] = set()
        async with asyncio.timeout(40):
            while len(seen) < 10:
                taken = await take(subscription, 1)
                await ack(subscription, *taken)
                seen |= {*payloads(taken)} - {b"x"}


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_cut_connections_lose_nothing_and_keep_the_order(
    url: str, ordering: Ordering
) -> None:
    name = topic()
    async with opened(url) as steady, FaultProxy.to(url) as proxy:
        settings = settings_of(name, ordering=ordering, lease=1.5)
        await steady.ensure(Topology(subscriptions=(settings,)), TopologyMode.CREATE)
        async with opened(proxy.url, ping_interval=0.5) as shaky:
            subscription = await shaky.subscribe(settings, Listener())
            lanes: dict[bytes, list[int]] = {}

            async def work() -> None:
                while True:
                    for delivery in await subscription.receive(8, MEGABYTE):
                        await asyncio.sleep(0.001)
                        results = await subscription.settle([Settlement(delivery)])
                        if results[0] is not SettleResult.LOST:
                            number = int(delivery.message.payload or b"")
                            lanes.setdefault(delivery.message.key or b"", []).append(number)

            worker = asyncio.ensure_future(work())
            publishing = []
            for number in range(300):
                key = b"k%d" % (number % 3)
                sent = message(name, b"%d" % number, key=key, deduplication_id=f"{number}")
                publishing.append(shaky.submit([sent]))
                await asyncio.sleep(0.01)
                if number % 60 == 30:
                    proxy.cut()
                if number % 60 == 40:
                    proxy.restore()
            assert {error for errors in await asyncio.gather(*publishing) for error in errors} == {
                None
            }
            async with asyncio.timeout(30):
                while len({n for lane in lanes.values() for n in lane}) < 300:
                    assert not worker.done(), worker.exception()
                    await asyncio.sleep(0.05)
            worker.cancel()
            await asyncio.gather(worker, return_exceptions=True)
    if ordering is Ordering.PER_KEY:
        for first in range(3):
            firsts = [*dict.fromkeys(lanes[b"k%d" % first])]
            assert firsts == [*range(first, 300, 3)]


async def test_a_durable_that_was_deleted_stops_the_subscription(
    url: str, transport: Transport
) -> None:
    name = topic()
    subscription, listener = await join(transport, name)
    receiving = asyncio.ensure_future(subscription.receive(1, MEGABYTE))
    await asyncio.sleep(0.1)
    await api(url, f"CONSUMER.DELETE.{JetStreamNames('protoflow').stream(name)}.billing")
    with pytest.raises(TransportError, match="on_lost_position"):
        await asyncio.wait_for(receiving, 10)
    assert not listener.health[-1][0]


async def test_a_lost_position_may_be_made_anew(url: str) -> None:
    name = topic()
    settings = TransportSettings(url=TransportURL.parse(url), on_lost_position="earliest")
    transport = transports.create(settings)
    await transport.open()
    try:
        subscription, _ = await join(transport, name)
        await publish(transport, message(name))
        await ack(subscription, *await take(subscription, 1))
        await api(url, f"CONSUMER.DELETE.{JetStreamNames('protoflow').stream(name)}.billing")
        assert payloads(await take(subscription, 1)) == [b"x"]
    finally:
        await transport.close()


async def test_broadcast_is_for_every_process_and_leaves_nothing_behind(url: str) -> None:
    name = topic()
    async with opened(url) as one, opened(url) as two:
        await publish(one, message(name, b"before"))
        members = [(await join(transport, name, broadcast=True))[0] for transport in (one, two)]
        await publish(one, message(name, b"x"))
        for member in members:
            (delivery,) = await take(member, 1)
            assert delivery.message.payload == b"x"
            await ack(member, delivery)
            await member.stop()
    listed = await api(url, f"CONSUMER.NAMES.{JetStreamNames('protoflow').stream(name)}")
    assert not listed["consumers"]


async def test_a_server_without_jetstream_is_an_error(tmp_path: Path) -> None:
    import subprocess

    from tests.brokers.base import free_port, wait_for_port
    from tests.brokers.nats import _find

    port = free_port()
    command = [str(_find()[0]), "-a", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_for_port(port, server, 10)
        with pytest.raises(ConnectionFailedError, match="nats-server -js"):
            await make(f"jetstream://127.0.0.1:{port}").open()
    finally:
        server.terminate()
        server.wait()


# Servers before 2.11


@pytest.fixture
def old() -> Iterator[RunningBroker]:
    """Debian's 2.9: no schedules, no pinned clients."""
    binary = os.environ.get("NATS_SERVER_OLD") or shutil.which("nats-server", path="/usr/sbin")
    if binary is None:
        pytest.skip("broker: Debian's nats-server 2.9 in /usr/sbin or NATS_SERVER_OLD")
    with start_own(NatsBroker(binary=Path(binary))) as broker:
        if not broker.version.startswith("2.9."):
            pytest.skip(f"broker: {binary} is {broker.version}, not 2.9")
        yield broker


async def test_an_old_server_says_what_it_cannot(old: RunningBroker) -> None:
    async with opened(jetstream(old)) as transport:
        assert not transport.capabilities.delayed_publish
        name = topic()
        subscription, _ = await join(transport, name)
        (error,) = await transport.submit([message(name, delay=1.0)])
        assert isinstance(error, PublishRefusedError)
        assert "2.12" in str(error)
        await publish(transport, message(name))
        (delivery,) = await take(subscription, 1)
        assert subscription.defer(delivery.message, 1.0) is None
        started = time.monotonic()
        nack = Settlement(delivery, Action.NACK, delay=0.6)
        assert await subscription.settle([nack]) == [SettleResult.DONE]
        (again,) = await take(subscription, 1)
        assert time.monotonic() - started >= 0.55
        assert again.deliveries == 2


async def test_an_old_server_keeps_the_order_one_at_a_time(old: RunningBroker) -> None:
    url = jetstream(old)
    async with opened(url) as one, opened(url) as two:
        name = topic()
        members = [(await join(t, name, ordering=Ordering.PER_KEY))[0] for t in (one, two)]
        await publish(one, *[message(name, b"%d" % n, key=b"k") for n in range(20)])
        seen: list[bytes] = []

        async def work(member: Any) -> None:
            while True:
                taken = await member.receive(10, MEGABYTE)
                assert len(taken) == 1
                await asyncio.sleep(0.005)
                seen.extend(payloads(taken))
                await ack(member, *taken)

        workers = [asyncio.ensure_future(work(member)) for member in members]
        async with asyncio.timeout(20):
            while len(seen) < 20:
                await asyncio.sleep(0.01)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        assert seen == [b"%d" % n for n in range(20)]


@pytest.mark.parametrize(
    ("options", "mistake"),
    [
        ({"storage": "paper"}, "must be one of file, memory"),
        ({"replicas": 9}, "option replicas must be from 1 to 5"),
        ({"shards": 0}, "option shards must be from 1 to 256"),
        ({"fetch_expires": 0.1}, "fetch_expires at least 1 s"),
    ],
)
def test_options_are_checked(options: dict[str, Any], mistake: str) -> None:
    with pytest.raises(ConfigError, match=mistake):
        make("jetstream://127.0.0.1", **options)
