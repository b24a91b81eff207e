"""What is Kafka's own, against a real one."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete
from protoflow import wire
from protoflow.contract.spec import Start
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import (
    CapabilityError,
    DeadLetterNotFoundError,
    PublishError,
    PublishRefusedError,
    TopologyError,
    TransportError,
)
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.testing import Listener
from protoflow.transport import (
    Isolation,
    LagReader,
    Subscription,
    Topology,
    TopologyMode,
)
from protoflow.transports.kafka.commit_metadata import CommitMetadata
from protoflow.transports.kafka.transport import KafkaTransport

from tests.transports.kafka.harness import (
    QUICK,
    ack,
    join,
    opened,
    payloads,
    publish,
    settings,
    take,
    unique,
)

CRASHER = Path(__file__).with_name("crasher.py")


def servers(url: str) -> str:
    return url.partition("://")[2].partition("?")[0]


async def committed(url: str, group: str, tp: TopicPartition) -> tuple[int, CommitMetadata]:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers(url))
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group, partitions=[tp])
    finally:
        await admin.close()
    place = found[tp]
    return place.offset, CommitMetadata.decode(place.metadata, place.offset)


async def make_topic(url: str, topic: str, partitions: int = 1, **configs: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers(url))
    await admin.start()
    try:
        configs = {name.replace("_", "."): value for name, value in configs.items()}
        await admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=configs)])
    finally:
        await admin.close()


async def test_foreign_headers_survive_and_are_published_again(
    url: str, broker: KafkaTransport
) -> None:
    topic, other = unique(), unique("other")
    subscription = await join(broker, settings(topic))
    await broker.ensure(Topology(topics=(other,)), TopologyMode.CREATE)
    native = [("a", b"1"), ("a", b"2"), ("bin", b"\xff"), ("null", None)]
    producer = AIOKafkaProducer(bootstrap_servers=servers(url))
    await producer.start()
    await producer.send_and_wait(topic, b"x", key=b"k", headers=native)
    await producer.stop()
    (delivery,) = await take(subscription, 1)
    assert dict(delivery.message.metadata) == {"a": "2"}
    assert delivery.message.id == f"{topic}-0-0", "no id of its own: the place is its id"
    again = dataclasses.replace(
        delivery.message, topic=other, metadata={**delivery.message.metadata, "b": "3"}
    )
    assert not any(await broker.submit([again]))
    consumer = AIOKafkaConsumer(other, bootstrap_servers=servers(url), auto_offset_reset="earliest")
    await consumer.start()
    record = await consumer.getone()
    await consumer.stop()
    headers = list(record.headers)
    assert [header for header in native if header not in headers] == []
    assert ("b", b"3") in headers
    assert ("ce_id", f"{topic}-0-0".encode()) in headers


async def test_a_topic_with_a_smaller_limit_refuses_one_message_and_takes_the_others(
    url: str, broker: KafkaTransport
) -> None:
    topic = unique()
    await make_topic(url, topic, max_message_bytes="2000")
    results = await broker.submit(
        [Message(id=str(size), topic=topic, payload=bytes(size)) for size in (10, 5000, 20)]
    )
    assert results[0] is None
    assert results[2] is None
    assert isinstance(results[1], PublishRefusedError)
    assert topic in str(results[1])
    assert "2000" in str(results[1])


async def test_a_limit_lowered_meanwhile_breaks_nothing_that_comes_later(
    url: str, broker: KafkaTransport
) -> None:
    """The broker refuses the batch; aiokafka's sequence numbers then have a gap."""
    from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

    topic = unique()
    await make_topic(url, topic)
    await publish(broker, topic, b"before")
    admin = AIOKafkaAdminClient(bootstrap_servers=servers(url))
    await admin.start()
    await admin.alter_configs(
        [ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": "2000"})]
    )
    await admin.close()
    await asyncio.sleep(0.5)
    small, large = [Message(id=str(size), topic=topic, payload=bytes(size)) for size in (300, 5000)]
    assert await broker.submit([small] * 10) == [None] * 10, "more than fits into a batch"
    (result,) = await broker.submit([large])
    assert isinstance(result, PublishRefusedError)
    results = await broker.submit([small, large, small])
    assert [result is None for result in results] == [True, False, True]
    for number in range(5):
        await publish(broker, topic, b"%d" % number)


async def test_publishing_to_no_topic(broker: KafkaTransport, url: str) -> None:
    async with opened(url, options={"metadata_timeout": 1.0}) as impatient:
        missing = unique("missing")
        (result,) = await impatient.submit([Message(id="1", topic=missing, payload=b"")])
        assert isinstance(result, PublishError)
        assert missing in str(result)
        (result,) = await impatient.submit([Message(id="1", topic="a b", payload=b"")])
        assert isinstance(result, PublishRefusedError)
        await make_topic(url, missing)
        await publish(impatient, missing, b"x")


async def test_a_subscriber_can_be_required(url: str) -> None:
    topic = unique()
    await make_topic(url, topic)
    async with opened(url, require_subscriber=True) as broker:
        message = Message(id="1", topic=topic, payload=b"x")
        (result,) = await broker.submit([message])
        assert isinstance(result, PublishError)
        assert "require_subscriber" in str(result)
        assert await broker.submit([dataclasses.replace(message, metadata={"pf_group": "g"})]) == [
            None
        ]
        await join(broker, settings(topic))
        assert await broker.submit([message]) == [None]


async def test_a_refused_message_keeps_no_other_from_its_topic(
    url: str, broker: KafkaTransport
) -> None:
    """Topics by turns, some of them impossible, some messages too large: each its own result."""
    small, other = unique("small"), unique("other")
    await make_topic(url, small, 2, max_message_bytes="2000")
    await make_topic(url, other)
    wanted = [
        (small, 10, True), ("a b", 10, False), ("a b", 20, False), (other, 3000, True),
        (small, 3000, False), (small, 3001, False), (small, 30, True), (other, 40, True),
    ]  # fmt: skip
    for _ in range(3):
        results = await broker.submit(
            [
                Message(id=str(size), topic=topic, payload=bytes(size), key=b"k")
                for topic, size, _ in wanted
            ]
        )
        assert [result is None for result in results] == [taken for *_, taken in wanted]
        assert all(isinstance(result, PublishRefusedError) for result in results if result)
    subscription = await join(broker, settings(small))
    taken = await take(subscription, 6)
    assert [len(item) for item in payloads(taken)] == [10, 30] * 3


async def test_a_delay_is_refused_before_anything_is_sent(broker: KafkaTransport) -> None:
    with pytest.raises(CapabilityError):
        broker.submit([Message(id="1", topic="t", payload=b"", delay=1.0)])


async def test_a_tombstone_without_key_is_refused(broker: KafkaTransport, url: str) -> None:
    topic = unique()
    await make_topic(url, topic)
    (result,) = await broker.submit([Message(id="1", topic=topic, payload=None)])
    assert isinstance(result, PublishRefusedError)


async def test_only_the_finished_prefix_is_committed_and_the_rest_is_noted(
    url: str, broker: KafkaTransport
) -> None:
    topic = unique()
    subscription = await join(broker, settings(topic))
    await publish(broker, topic, *[b"%d" % number for number in range(6)])
    batch = await take(subscription, 6)
    await ack(subscription, batch[0], batch[2], batch[5])
    await subscription.settle([Settlement(batch[n], Action.RELEASE) for n in (1, 3, 4)])
    await broker.close()
    offset, metadata = await committed(url, "billing", TopicPartition(topic, 0))
    assert offset == 1
    assert metadata.finished == {2, 5}
    assert metadata.starts == 0
    async with opened(url) as later:
        subscription = await join(later, settings(topic))
        assert payloads(await take(subscription, 3)) == [b"1", b"3", b"4"]


async def test_progress_is_committed_by_interval(url: str, broker: KafkaTransport) -> None:
    topic = unique()
    subscription = await join(broker, settings(topic))
    tp = TopicPartition(topic, 0)
    assert (await committed(url, "billing", tp))[1].starts == 1
    await publish(broker, topic, b"0", b"1")
    await ack(subscription, *await take(subscription, 2))
    async with asyncio.timeout(10):
        while (await committed(url, "billing", tp))[0] != 2:
            await asyncio.sleep(0.1)


async def test_partitions_are_drained_and_committed_before_they_move(
    url: str, broker: KafkaTransport
) -> None:
    topic = unique()
    await make_topic(url, topic, 2)
    wanted = settings(topic, rebalance_drain=5.0)
    running: list[Delivery] = []
    finished_at = 0.0

    async def drain() -> None:
        nonlocal finished_at
        await asyncio.sleep(3.0)  # longer than the session
        await ack(first, *running)
        finished_at = time.monotonic()

    listener = Listener(drain)
    first = await join(broker, wanted, listener)
    for key in range(8):
        await publish(broker, topic, b"%d" % key, key=b"%d" % key)
    running += await take(first, 8)
    async with opened(url) as other:
        second = await join(other, wanted)
        assert time.monotonic() >= finished_at > 0, "the second waits for the first to drain"
        assert listener.revoked[0][1] == 5.0
        with pytest.raises(TimeoutError):
            await take(second, 1, within=1.5)
    assert listener.health == []


async def test_settling_what_moved_away_is_reported(url: str, broker: KafkaTransport) -> None:
    topic = unique()
    wanted = settings(topic)
    first = await join(broker, wanted)
    await publish(broker, topic, b"x")
    (delivery,) = await take(first, 1)
    async with opened(url) as other:
        await join(other, wanted)
        assert await first.settle([Settlement(delivery)]) == [SettleResult.LOST]


async def handle_all(subscription: Subscription, within: float) -> int:
    """Acknowledges until nothing comes any more; how many."""
    handled = 0
    while True:
        try:
            batch = await take(subscription, 1, within)
        except TimeoutError:
            return handled
        await ack(subscription, *batch)
        handled += len(batch)


async def test_a_slow_handler_is_not_evicted_and_the_window_is_bounded(
    url: str, broker: KafkaTransport
) -> None:
    topic = unique()
    async with opened(url, options={"window": 20}) as transport:
        listener = Listener()
        subscription = await join(transport, settings(topic, unique("group")), listener)
        await publish(transport, topic, *[b"%d" % number for number in range(1200)])
        slow = (await take(subscription, 1))[0]
        taken = 1
        taken += await handle_all(subscription, within=3.0)
        assert taken < 1100, "the window bounds what is finished beyond the slow one"
        await ack(subscription, slow)
        taken += await handle_all(subscription, within=3.0)
        assert taken == 1200
        assert listener.revoked == []


async def test_empty_retry_topics_do_not_hold_up_a_busy_one(url: str) -> None:
    """A fetch of the empty ones must not keep the next of the busy one waiting."""
    topic = unique()
    async with opened(url, options={"fetch_max_wait": 5.0}) as transport:
        subscription = await join(transport, settings(topic))
        await publish(transport, topic, *[bytes(1000)] * 4000)
        begun = time.monotonic()
        taken = 0
        while taken < 4000:
            deliveries = await take(subscription, 1, within=10)
            deliveries += await subscription.receive(500, 2**20)
            await ack(subscription, *deliveries)
            taken += len(deliveries)
            await asyncio.sleep(0.12)  # so long that aiokafka fetches from the others
        assert time.monotonic() - begun < 5.0


async def test_a_paused_shard_does_not_stop_the_others(url: str, broker: KafkaTransport) -> None:
    topic = unique()
    await make_topic(url, topic, 2)
    subscription = await join(broker, settings(topic))
    for key in range(20):
        await publish(broker, topic, b"%d" % key, key=b"%d" % key)
    batch = await take(subscription, 1)
    paused = batch[0].shard
    subscription.pause([paused])
    others = await take(subscription, 1)
    while len(others) < 20:
        try:
            others += await take(subscription, 1, within=1.5)
        except TimeoutError:
            break
    assert {delivery.shard for delivery in others} == {1 - int(paused)}
    subscription.resume([paused])
    rest = await take(subscription, 20 - 1 - len(others))
    assert {delivery.shard for delivery in rest} == {paused}
    assert [d.position for d in (*batch, *rest)] == sorted(d.position for d in (*batch, *rest))


async def test_a_retry_rests_on_its_rung_and_comes_back_under_its_topic(url: str) -> None:
    topic = unique()
    async with opened(url, ladder=(1.0, 3.0)) as broker:
        subscription = await join(broker, settings(topic, needs_broker_retry=True))
        await publish(broker, topic, b"x", metadata={"a": "1"}, key=b"k")
        (delivery,) = await take(subscription, 1)
        before = time.time()
        deferred = subscription.defer(delivery.message, 1.2)
        assert deferred is not None
        assert deferred.topic == f"{topic}..billing..retry.1"
        assert not any(await broker.submit([deferred]))
        await ack(subscription, delivery)
        (again,) = await take(subscription, 1)
        assert time.time() - before >= 1.0
        assert again.message.topic == topic
        assert again.message.id == delivery.message.id
        assert again.message.key == b"k"
        assert float(again.message.metadata[wire.PF_DUE]) == pytest.approx(before + 1.2, abs=0.1)
        assert isinstance(again.shard, str)
        await ack(subscription, again)


@pytest.mark.parametrize("start", [Start.EARLIEST, Start.LATEST])
async def test_where_a_new_group_starts_is_pinned(
    url: str, broker: KafkaTransport, start: Start
) -> None:
    topic = unique()
    await make_topic(url, topic)
    await publish(broker, topic, b"before")
    wanted = settings(topic, start=start)
    await (await join(broker, wanted)).stop()
    await publish(broker, topic, b"between")  # the group has no member now, but a position
    subscription = await join(broker, wanted)
    expected = [b"before", b"between"] if start is Start.EARLIEST else [b"between"]
    assert payloads(await take(subscription, len(expected))) == expected


async def delete_records(url: str, tp: TopicPartition, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=servers(url))
    await admin.start()
    await admin.delete_records({tp: RecordsToDelete(before)})
    await admin.close()


async def lose_position(url: str, topic: str) -> None:
    async with opened(url) as broker:
        await (await join(broker, settings(topic))).stop()
        await publish(broker, topic, b"0", b"1", b"2")
    await delete_records(url, TopicPartition(topic, 0), 2)


async def test_a_lost_position_stops_the_subscription_aloud(url: str) -> None:
    topic = unique()
    await lose_position(url, topic)
    async with opened(url) as broker:
        listener = Listener()
        subscription = await join(broker, settings(topic), listener)
        with pytest.raises(TransportError, match="the position is lost"):
            await take(subscription, 1)
        assert [healthy for healthy, _ in listener.health] == [False]
        assert topic in listener.health[0][1]


@pytest.mark.parametrize(("policy", "expected"), [("earliest", [b"2"]), ("latest", [b"new"])])
async def test_a_lost_position_is_set_anew_where_config_says_so(
    url: str, policy: str, expected: list[bytes]
) -> None:
    topic = unique()
    await lose_position(url, topic)
    async with opened(url, on_lost_position=policy) as broker:
        subscription = await join(broker, settings(topic))
        await asyncio.sleep(1.0)
        await publish(broker, topic, b"new")
        assert payloads(await take(subscription, 1)) == expected


async def test_verify_reports_everything_and_changes_nothing(url: str) -> None:
    topic = unique()
    await make_topic(url, topic, 3)
    wanted = settings(topic, needs_broker_retry=True)
    async with opened(url, ladder=(5.0,), options={"partitions": 4}) as broker:
        with pytest.raises(TopologyError) as caught:
            await broker.ensure(Topology(subscriptions=(wanted,)), TopologyMode.VERIFY)
        text = str(caught.value)
        for missing in ("retry.0", "retry.5", "dead"):
            assert f"{topic}..billing..{missing} is missing" in text
        assert f"{topic} has 3 partitions, not 4" in text
        with pytest.raises(TopologyError, match="3 partitions"):
            await broker.ensure(Topology(subscriptions=(wanted,)), TopologyMode.CREATE)
        await broker.ensure(Topology(subscriptions=(wanted,)), TopologyMode.NONE)
    async with opened(url, ladder=(5.0,)) as broker:
        with pytest.raises(TopologyError, match="topics are missing"):
            await broker.subscribe(wanted, Listener())
        await broker.ensure(Topology(subscriptions=(wanted,)), TopologyMode.CREATE)
        await broker.ensure(Topology(subscriptions=(wanted,)), TopologyMode.VERIFY)


def dead_letter(topic: str, id: str, group: str = "billing") -> Message:
    return Message(
        id=id,
        topic=f"{topic}..{group}..dead",
        payload=b"payload " + id.encode(),
        key=b"k",
        metadata={
            "ce_type": "shop.v1.OrderPlaced",
            wire.PF_ORIGINAL_TOPIC: topic,
            wire.PF_GROUP: group,
            wire.PF_ATTEMPT: "5",
            wire.PF_ERROR_MESSAGE: "no",
        },
        headers=[("bin", b"\xff"), (wire.PF_ATTEMPT, b"5")],
    )


async def test_dead_letters_are_listed_shown_replayed_and_purged(broker: KafkaTransport) -> None:
    topic = unique()
    dead = f"{topic}..billing..dead"
    failing = await join(broker, settings(topic))
    other = await join(broker, settings(topic, "mailing"))
    assert await dead_letters_of(broker).count(dead) == 0
    assert not any(await broker.submit([dead_letter(topic, str(number)) for number in range(5)]))
    assert await dead_letters_of(broker).count(dead) == 5
    listed = await dead_letters_of(broker).list(dead, limit=2)
    assert [item.message.id for item in listed] == ["0", "1"]
    assert (await dead_letters_of(broker).show(dead, "3")).message.payload == b"payload 3"
    with pytest.raises(DeadLetterNotFoundError, match="nope"):
        await dead_letters_of(broker).show(dead, "nope")
    assert await dead_letters_of(broker).replay(dead, ["1"]) == 1
    (again,) = await take(failing, 1)
    assert (again.message.id, again.message.topic) == ("1", topic)
    assert again.message.metadata[wire.PF_GROUP] == "billing"
    assert wire.PF_ATTEMPT not in again.message.metadata
    assert ("bin", b"\xff") in again.message.headers
    await ack(failing, again)
    assert await dead_letters_of(broker).purge(dead, ["2"]) == 1
    assert [item.message.id for item in await dead_letters_of(broker).list(dead)] == ["0", "3", "4"]
    assert not any(await broker.submit([dead_letter(topic, "1")]))  # it failed once more
    assert await dead_letters_of(broker).count(dead) == 4
    assert await dead_letters_of(broker).replay(dead, ["0"], to_origin=True) == 1
    for subscription in (failing, other):
        (again,) = await take(subscription, 1)
        assert again.message.id == "0"
        assert not [name for name in again.message.metadata if name.startswith("pf_")]
        await ack(subscription, again)
    with pytest.raises(TimeoutError):
        await take(other, 1, within=1.0)
    assert await dead_letters_of(broker).purge(dead) == 3
    assert await dead_letters_of(broker).count(dead) == 0
    with pytest.raises(TopologyError):
        await dead_letters_of(broker).count(unique("nothing"))


async def test_lag(broker: KafkaTransport) -> None:
    topic = unique()
    assert isinstance(broker, LagReader)
    subscription = await join(broker, settings(topic))
    assert (await broker.lag(topic, "billing")).messages == 0
    await publish(broker, topic, *[b"x"] * 5)
    batch = await take(subscription, 5)
    await ack(subscription, batch[0], batch[3])
    await asyncio.sleep(1.0)
    lag = await broker.lag(topic, "billing")
    assert lag.messages == 3
    assert lag.seconds is not None
    assert 0.9 <= lag.seconds < 30


async def test_broadcast_starts_now_and_in_every_process(url: str, broker: KafkaTransport) -> None:
    topic = unique()
    await make_topic(url, topic, 2)
    await publish(broker, topic, b"before")
    wanted = settings(topic, broadcast=True)
    async with opened(url) as other:
        members = [await join(broker, wanted), await join(other, wanted)]
        await publish(broker, topic, b"now")
        for member in members:
            (delivery,) = await take(member, 1)
            assert delivery.message.payload == b"now"
            assert member.defer(delivery.message, 10.0) is None
            await member.settle([Settlement(delivery, Action.NACK, delay=0.3, failures=2)])
            (again,) = await take(member, 1)
            assert again.failures == 2
            await ack(member, again)


async def test_static_members_come_back_without_a_rebalance(url: str) -> None:
    topic = unique()
    await make_topic(url, topic, 2)
    listener = Listener()
    async with opened(url, options={"group_instance_id": "a"}) as first:
        await join(first, settings(topic), listener)
        for _ in range(2):
            async with opened(
                url, options={"group_instance_id": "b", "session_timeout": 10.0}
            ) as second:
                await join(second, settings(topic))
    assert len(listener.revoked) == 1


async def test_a_process_killer_is_found_and_its_neighbours_are_not_blamed(
    url: str, broker: KafkaTransport
) -> None:
    topic = unique()
    wanted = settings(topic)
    await (await join(broker, wanted)).stop()
    await publish(broker, topic, b"0", b"1", b"killer", b"3", b"4")
    runs = []
    for _ in range(5):
        done = subprocess.run(
            [sys.executable, str(CRASHER), url, topic, json.dumps(QUICK)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 9, done.stderr
        runs.append([tuple(json.loads(line)) for line in done.stdout.splitlines()])
    starts = [[name for name, _ in run] for run in runs]
    assert "killer" in starts[0]
    assert runs[2] == [("0", 0), ("1", 0), ("killer", 0)], "one at a time from the third start"
    assert runs[3] == [("killer", 1)], "the innocent were finished, and are not redone"
    assert runs[4] == [("killer", 2)]
    subscription = await join(broker, wanted)
    killer, *innocent = await take(subscription, 3)
    assert killer.message.payload == b"killer"
    assert killer.suspect
    assert isinstance(subscription, Isolation)
    assert await subscription.isolate(killer) == (killer, 3)
    for delivery in innocent:
        assert await subscription.isolate(delivery) == (delivery, 0)
    await subscription.clear(killer)
    assert await subscription.isolate(killer) == (killer, 0)
    assert (await committed(url, "billing", TopicPartition(topic, 0)))[1].marks == {}
