"""One member of a group for each process, its lease, and topics that change under it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st
from protoflow.contract.spec import Ordering, Start
from protoflow.errors import TransportError
from protoflow.message import Action, Settlement, SettleResult
from protoflow.testing import Listener
from protoflow.transport import Availability, Topology, TopologyMode
from protoflow.transports.kafka.assignors import keep_retries_beside
from protoflow.transports.kafka.group_lease import GroupLease
from protoflow.transports.kafka.transport import KafkaTransport

from tests.transports.kafka.harness import (
    ack,
    join,
    opened,
    payloads,
    publish,
    settings,
    take,
    unique,
)

#: Topics and groups are looked at often.
WATCHFUL = {"health_interval": 0.3, "metadata_max_age": 1.0}


@pytest.fixture
async def admin(url: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=url.partition("://")[2].partition("?")[0])
    await client.start()
    yield client
    await client.close()


@pytest.fixture
async def patient(url: str) -> AsyncIterator[KafkaTransport]:
    """With a session that does not end on a busy machine."""
    async with opened(url, options={"session_timeout": 30.0}) as transport:
        yield transport


async def test_all_topics_of_a_group_are_read_by_one_member(
    patient: KafkaTransport, admin: AIOKafkaAdminClient
) -> None:
    """A member for each topic made the earlier ones drain at every start and stop."""
    topics, group = [unique() for _ in range(3)], unique("group")
    wanted = [settings(topic, group) for topic in topics]
    await patient.ensure(Topology(subscriptions=tuple(wanted)), TopologyMode.CREATE)
    for topic in topics:
        await publish(patient, topic, topic.encode())
    listeners = [Listener() for _ in wanted]
    subscriptions = []
    for item, listener in zip(wanted, listeners, strict=True):
        subscriptions.append(await patient.subscribe(item, listener))
        for earlier, topic in zip(subscriptions, topics, strict=False):
            if earlier is subscriptions[-1]:
                assert payloads(await take(earlier, 1)) == [topic.encode()]
    description: Any
    (description,) = await admin.describe_consumer_groups([group])
    (members,) = [item[5] for item in description.groups]
    assert len(members) == 1
    await subscriptions[0].stop()
    await publish(patient, topics[2], b"later")
    assert payloads(await take(subscriptions[2], 1)) == [b"later"]
    assert [listener.revoked for listener in listeners] == [[], [], []]


async def test_a_subscription_that_is_busy_keeps_no_other_of_its_group_waiting(
    broker: KafkaTransport,
) -> None:
    busy, quick, group = unique(), unique(), unique("group")
    wanted = [settings(topic, group) for topic in (busy, quick)]
    await broker.ensure(Topology(subscriptions=tuple(wanted)), TopologyMode.CREATE)
    first, second = [await broker.subscribe(item, Listener()) for item in wanted]
    await publish(broker, busy, *[b"x"] * 20)
    await take(first, 1)  # the others wait to be handed out
    for number in range(3):
        await publish(broker, quick, b"%d" % number)
        assert payloads(await take(second, 1, within=3)) == [b"%d" % number]
    assert len(await take(first, 19)) == 19


async def test_a_topic_that_was_not_announced_is_read_all_the_same(broker: KafkaTransport) -> None:
    one, other, group = unique(), unique(), unique("group")
    first = await join(broker, settings(one, group))
    second = await join(broker, settings(other, group))
    await publish(broker, one, b"1")
    await publish(broker, other, b"2")
    assert payloads(await take(first, 1)) == [b"1"]
    assert payloads(await take(second, 1)) == [b"2"]


class Cluster:
    def __init__(self, counts: dict[str, int]) -> None:
        self.counts = counts

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self.counts[topic])) if topic in self.counts else None


@given(
    st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4),
    st.integers(1, 5),
    st.sampled_from([RoundRobinPartitionAssignor, RangePartitionAssignor]),
)
def test_a_partition_and_its_retries_have_one_owner(
    counts: list[tuple[int, int]], members: int, base: Any
) -> None:
    mains = {f"t{number}..g..retry.0": f"t{number}" for number in range(len(counts))}
    partitions: dict[str, int] = {}
    for number, (main, retries) in enumerate(counts):
        partitions |= {f"t{number}": main, f"t{number}..g..retry.0": retries}
    subscribed = {
        f"m{number}": ConsumerProtocolMemberMetadata(0, sorted(partitions), b"")
        for number in range(members)
    }
    assignor: Any = keep_retries_beside(base, mains)
    owners: dict[tuple[str, int], str] = {}
    for member, assignment in assignor.assign(Cluster(partitions), subscribed).items():
        for tp in assignment.partitions():
            assert (tp.topic, tp.partition) not in owners, "given to one member only"
            owners[tp.topic, tp.partition] = member
    assert len(owners) == sum(partitions.values())
    for (topic, number), member in owners.items():
        if topic in mains:
            assert member == owners[mains[topic], number % partitions[mains[topic]]]


async def test_added_partitions_start_at_their_beginning(
    url: str, admin: AIOKafkaAdminClient
) -> None:
    """START_LATEST is about what was there before the group, not about what comes."""
    topic = unique()
    wanted = settings(topic, start=Start.LATEST)
    async with opened(url, options={**WATCHFUL, "partitions": 1}) as broker:
        await broker.ensure(Topology(topics=(topic,)), TopologyMode.CREATE)
        await publish(broker, topic, b"before the group")
        subscription = await join(broker, wanted)
        await admin.create_partitions({topic: NewPartitions(total_count=3)})
        producer = AIOKafkaProducer(
            bootstrap_servers=url.partition("://")[2].partition("?")[0], metadata_max_age_ms=500
        )
        await producer.start()
        while len(await producer.partitions_for(topic)) < 3:
            await asyncio.sleep(0.1)
        for number in range(3):
            await producer.send_and_wait(topic, b"%d" % number, partition=number)
        await producer.stop()
        seen: set[bytes] = set()  # a rebalance may bring again what was not acknowledged
        while len(seen) < 3:
            seen.update(payloads(await take(subscription, 1)))
        assert seen == {b"0", b"1", b"2"}


async def test_more_partitions_than_the_option_says_are_no_error_and_replays_grow_with_them(
    url: str, admin: AIOKafkaAdminClient
) -> None:
    topic = unique()
    wanted = Topology(subscriptions=(settings(topic, ordering=Ordering.PER_KEY),))
    async with opened(url, options={"partitions": 2}) as broker:
        await broker.ensure(wanted, TopologyMode.CREATE)
        await admin.create_partitions({topic: NewPartitions(total_count=5)})
        while len((await admin.describe_topics([topic]))[0]["partitions"]) < 5:
            await asyncio.sleep(0.05)
        await broker.ensure(wanted, TopologyMode.CREATE)
        (replays,) = await admin.describe_topics([f"{topic}..billing..retry.0"])
        assert len(replays["partitions"]) == 5
        await broker.ensure(wanted, TopologyMode.VERIFY)


@pytest.mark.parametrize("change", ["ladder", "ordering", "attempts"])
async def test_retries_under_way_in_rungs_of_an_earlier_deployment_are_handled(
    url: str, change: str
) -> None:
    topic = unique()
    async with opened(url, ladder=(1.0, 30.0)) as broker:
        subscription = await join(broker, settings(topic, needs_broker_retry=True))
        await publish(broker, topic, b"x", key=b"k")
        (delivery,) = await take(subscription, 1)
        deferred = subscription.defer(delivery.message, 1.0)
        assert deferred is not None
        assert not any(await broker.submit([deferred]))
        await ack(subscription, delivery)
    ladder = (2.0, 30.0) if change == "ladder" else (1.0, 30.0)
    ordering = Ordering.PER_KEY if change == "ordering" else Ordering.NONE
    async with opened(url, ladder=ladder) as broker:
        wanted = settings(topic, needs_broker_retry=change == "ladder", ordering=ordering)
        subscription = await join(broker, wanted)
        (again,) = await take(subscription, 1)
        assert again.message.payload == b"x"
        assert again.own_place
        await ack(subscription, again)


async def make_anew(admin: AIOKafkaAdminClient, topic: str) -> None:
    await admin.delete_topics([topic])
    while topic in await admin.list_topics():
        await asyncio.sleep(0.05)
    made: Any = await admin.create_topics([NewTopic(topic, 1, 1)])
    assert [code for _, code, *_ in made.topic_errors] == [0]


@pytest.mark.parametrize("policy", ["stop", "earliest"])
async def test_a_topic_made_anew_is_not_read_from_where_the_old_one_was(
    url: str, admin: AIOKafkaAdminClient, policy: str
) -> None:
    topic = unique()
    async with opened(url, options=WATCHFUL, on_lost_position=policy) as broker:
        listener = Listener()
        subscription = await join(broker, settings(topic), listener)
        await publish(broker, topic, *[b"old"] * 10)
        await ack(subscription, *await take(subscription, 10))
        await make_anew(admin, topic)
        async with opened(url) as publisher:
            await publish(publisher, topic, *[b"%d" % number for number in range(30)])
        if policy == "stop":
            with pytest.raises(TransportError, match=r"position|created again"):
                await take(subscription, 1000)
            assert listener.health[-1][0] is False
        else:
            seen: set[bytes] = set()
            while len(seen) < 30:
                seen.update(payloads(await take(subscription, 1)))


async def test_a_topic_made_anew_while_nobody_read_it_is_noticed(
    url: str, admin: AIOKafkaAdminClient
) -> None:
    topic = unique()
    async with opened(url) as broker:
        subscription = await join(broker, settings(topic))
        await publish(broker, topic, *[b"old"] * 10)
        taken = await take(subscription, 10)
        await make_anew(admin, topic)
        await asyncio.sleep(0.5)
        # Maybe committed when it stops, though the topic is another.
        await subscription.settle([Settlement(delivery) for delivery in taken])
    async with opened(url) as broker:
        await publish(broker, topic, *[b"new"] * 20)
        subscription = await join(broker, settings(topic))
        with pytest.raises(TransportError, match="created again"):
            await take(subscription, 1)
    async with opened(url, on_lost_position="earliest") as broker:
        subscription = await join(broker, settings(topic))
        assert payloads(await take(subscription, 20)) == [b"new"] * 20


async def test_a_deleted_topic_is_named(url: str, admin: AIOKafkaAdminClient) -> None:
    topic = unique()
    async with opened(url, options=WATCHFUL) as broker:
        listener = Listener()
        await join(broker, settings(topic), listener)
        await admin.delete_topics([f"{topic}..billing..retry.0"])
        async with asyncio.timeout(20):
            while not any(f"{topic}..billing..retry.0" in text for _, text in listener.health):
                await asyncio.sleep(0.1)


async def test_the_assignment_ends_with_the_last_answered_heartbeat(
    broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group gives away what a member has that it does not hear."""
    topic, listener = unique(), Listener()
    subscription = await join(broker, settings(topic), listener)
    await publish(broker, topic, b"0", b"1")
    held, other = await take(subscription, 2)
    monkeypatch.setattr(GroupLease, "is_over", property(lambda _self: True))
    async with asyncio.timeout(10):
        while not listener.revoked:
            await asyncio.sleep(0.05)
    while (await subscription.settle([Settlement(held)]))[0] is SettleResult.DONE:
        await asyncio.sleep(0.05)
    monkeypatch.undo()
    again = await take(subscription, 1)
    assert again[0].message.payload in (held.message.payload, other.message.payload)
    assert listener.health[-1][0], "and it goes on when it is heard again"


async def test_what_could_be_handed_out_is_counted(broker: KafkaTransport) -> None:
    topic = unique()
    subscription = await join(broker, settings(topic))
    assert isinstance(subscription, Availability)
    assert await subscription.available() == 0
    subscription.pause([0])
    await publish(broker, topic, *[b"x"] * 5)
    async with asyncio.timeout(10):
        while await subscription.available() != 5:
            await asyncio.sleep(0.1)
    subscription.resume([0])
    await ack(subscription, *await take(subscription, 5))
    assert await subscription.available() == 0


async def test_a_crash_is_no_orderly_end(url: str, broker: KafkaTransport) -> None:
    """What was handed out and never came back may be what ends the process."""
    topic = unique()
    for _ in range(2):
        async with opened(url) as member:
            subscription = await join(member, settings(topic))
            await publish(broker, topic, b"x")
            await take(subscription, 1)
    async with opened(url) as member:
        subscription = await join(member, settings(topic))
        (suspect, *_) = await take(subscription, 2)
        assert suspect.suspect
        await subscription.settle([Settlement(suspect, Action.RELEASE)])


async def test_atomic_on_and_off_again_loses_and_repeats_nothing(url: str) -> None:
    """A deployment that changes the policy goes on where the one before was."""
    topic = unique()
    done: list[bytes] = []
    for turn, atomic in enumerate((False, True, False)):
        async with opened(url) as broker:
            subscription = await join(broker, settings(topic, atomic=atomic))
            await publish(broker, topic, *[b"%d.%d" % (turn, number) for number in range(4)])
            batch = await take(subscription, 4 + (turn > 0))
            done += payloads(batch[:-1])
            await ack(subscription, *batch[:-1])
            await subscription.settle([Settlement(batch[-1], Action.RELEASE)])
    assert len(done) == len({*done}) == 11
