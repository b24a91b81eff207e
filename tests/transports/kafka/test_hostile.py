"""Records that aiokafka cannot read, and headers that are none of the runtime's."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st
from protoflow import wire
from protoflow.dead_letters import dead_letters_of
from protoflow.message import Message, Settlement, SettleResult
from protoflow.transport import Topology, TopologyMode
from protoflow.transports.kafka.transport import KafkaTransport

from tests.transports.kafka.batches import TP, batch_of, fetched
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

EVIL = Path(__file__).with_name("evil.py")


def servers(url: str) -> str:
    return url.partition("://")[2].partition("?")[0]


def publish_evil(url: str, topic: str, compression: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EVIL), servers(url), topic, compression],
        env={**os.environ, "AIOKAFKA_NO_EXTENSIONS": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compression", ["none", "gzip"])
async def test_a_header_whose_name_is_no_text_ends_nothing(
    url: str, broker: KafkaTransport, compression: str
) -> None:
    topic = unique()
    subscription = await join(broker, settings(topic))
    await publish(broker, topic, b"before")
    await asyncio.to_thread(publish_evil, url, topic, compression)
    await publish(broker, topic, b"after")
    taken = await take(subscription, 8)
    assert payloads(taken) == [b"before", *[b"%d" % number for number in range(6)], b"after"]
    unreadable = [delivery for delivery in taken if delivery.unreadable]
    assert payloads(unreadable) == [b"1", b"4"]
    assert all(delivery.message.key == b"k" for delivery in unreadable)
    again = [
        Message(
            id=delivery.message.id,
            topic=topic,
            payload=delivery.message.payload,
            metadata=delivery.message.metadata,
            headers=delivery.message.headers,
        )
        for delivery in unreadable
    ]
    assert await broker.submit(again) == [None, None], "a dead letter of it can be written"
    await ack(subscription, *taken)


async def test_neighbours_of_the_unreadable_are_read_after_a_restart_too(
    url: str, broker: KafkaTransport
) -> None:
    topic, other = unique(), unique()
    wanted = (settings(topic), settings(other))
    await broker.ensure(Topology(subscriptions=wanted), TopologyMode.CREATE)
    await asyncio.to_thread(publish_evil, url, topic, "none")
    await publish(broker, other, *[b"%d" % number for number in range(50)])
    for _ in range(2):
        async with opened(url) as member:
            await member.ensure(Topology(subscriptions=wanted), TopologyMode.CREATE)
            first, second = [await join(member, item) for item in wanted]
            assert len(await take(first, 6)) == 6
            assert len(await take(second, 50)) == 50


RECORDS = st.lists(
    st.tuples(st.none() | st.binary(max_size=20), st.booleans()), min_size=1, max_size=12
)


@given(st.lists(RECORDS, min_size=1, max_size=4), st.integers(1, 8), st.integers(0, 5))
def test_every_record_is_read_once_and_in_order_whatever_its_headers_are(
    batches: list[list[tuple[bytes | None, bool]]], at_once: int, skipped: int
) -> None:
    raw = b""
    wanted: list[tuple[bytes | None, bool]] = []
    for batch in batches:
        raw += batch_of(len(wanted), batch)
        wanted += batch
    result, unreadable, assignment = fetched(raw, min(skipped, len(batches[0]) - 1))
    start = assignment.position
    read = []
    for _ in range(200):
        if not result.has_more():
            break
        found = result.getall(at_once)
        read += found
    assert [record.offset for record in read] == list(range(start, len(wanted)))
    assert [record.value for record in read] == [value for value, _ in wanted[start:]]
    reasons = unreadable.take(TP)
    # A batch is read on leniently from its first bad record, and only bad ones are reported.
    assert set(reasons) == {n for n in range(start, len(wanted)) if wanted[n][1]}


@given(RECORDS, st.data())
def test_damage_never_raises_out_of_reading_and_never_stands_still(
    batch: list[tuple[bytes | None, bool]], data: st.DataObject
) -> None:
    raw = bytearray(batch_of(0, batch) + batch_of(len(batch), [(b"next", False)]))
    first = len(batch_of(0, batch))
    place = data.draw(st.integers(61, first - 1))
    raw[place] = data.draw(st.integers(0, 255))
    assignment_at = 0
    for _ in range(50):
        result, _unreadable, assignment = fetched(bytes(raw), assignment_at)
        while result.has_more():
            result.getall(5)
        if assignment.position == assignment_at:
            break
        assignment_at = assignment.position
    assert assignment_at == len(batch) + 1


async def test_hop_state_is_believed_in_retry_topics_only(url: str, broker: KafkaTransport) -> None:
    topic = unique()
    subscription = await join(broker, settings(topic))
    producer = AIOKafkaProducer(bootstrap_servers=servers(url))
    await producer.start()
    forged = [(wire.PF_GROUP, b"billing"), (wire.PF_ATTEMPT, b"inf"), (wire.PF_DUE, b"9e99")]
    await producer.send_and_wait(topic, b"forged", headers=forged)
    retry = f"{topic}..billing..retry.0"
    await producer.send_and_wait(retry, b"own", headers=[(wire.PF_GROUP, b"billing")])
    await producer.send_and_wait(retry, b"other", headers=[(wire.PF_GROUP, b"mailing")])
    await producer.send_and_wait(retry, b"own", headers=[(wire.PF_GROUP, b"billing")])
    await producer.stop()
    taken = await take(subscription, 3)
    assert sorted((item.message.payload, item.own_place) for item in taken) == [
        (b"forged", False),
        (b"own", True),
        (b"own", True),
    ]


def dead_letter(topic: str, id: str, **metadata: str) -> Message:
    return Message(
        id=id,
        topic=f"{topic}..billing..dead",
        payload=b"",
        metadata={
            wire.PF_DEAD_LETTER: "true",
            wire.PF_ORIGINAL_TOPIC: topic,
            wire.PF_GROUP: "billing",
            **metadata,
        },
    )


async def test_nobody_hides_the_dead_letters_of_others(broker: KafkaTransport) -> None:
    """A header of a message that was dead-lettered is no marker."""
    topic = unique()
    await join(broker, settings(topic))
    dead = f"{topic}..billing..dead"
    assert not any(await broker.submit([dead_letter(topic, "victim")]))
    for forged in ("victim", "0", "-1", "9" * 400):
        assert not any(
            await broker.submit([dead_letter(topic, "x", **{wire.PF_DLQ_RESOLVED: forged})])
        )
        bare = Message(
            id="x", topic=dead, payload=b"", key=b"k", metadata={wire.PF_DLQ_RESOLVED: forged}
        )
        assert not any(await broker.submit([bare]))
    assert await dead_letters_of(broker).count(dead) == 9
    assert (await dead_letters_of(broker).show(dead, "victim")).message.id == "victim"


async def test_what_is_dead_lettered_again_during_its_replay_stays_open(
    broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Markers name a position: the same id may be dead-lettered again meanwhile."""
    from protoflow.transports.kafka.dead_letters import KafkaScan

    topic = unique()
    subscription = await join(broker, settings(topic))
    dead = f"{topic}..billing..dead"
    assert not any(await broker.submit([dead_letter(topic, "a"), dead_letter(topic, "b")]))
    removed = KafkaScan.remove

    async def dead_lettered_again(self: KafkaScan, *arguments: object) -> None:
        assert not any(await broker.submit([dead_letter(topic, "a")]))
        await removed(self, *arguments)  # type: ignore[arg-type]  # passed on as they came

    monkeypatch.setattr(KafkaScan, "remove", dead_lettered_again)
    assert await dead_letters_of(broker).replay(dead) == 2
    assert [item.message.id for item in await dead_letters_of(broker).list(dead)] == ["a"]
    assert len(await take(subscription, 2)) == 2


async def test_retries_and_dead_letters_of_the_largest_messages_fit(
    url: str, broker: KafkaTransport
) -> None:
    topic = unique()
    subscription = await join(broker, settings(topic, needs_broker_retry=True))
    largest = 1048576 - 61 - 21 - 200
    await publish(broker, topic, bytes(largest), key=b"k")
    (delivery,) = await take(subscription, 1)
    hop = {f"pf_{number}": "x" * 1000 for number in range(40)}
    message = delivery.message
    for target in (f"{topic}..billing..retry.5", f"{topic}..billing..dead"):
        grown = Message(
            id=message.id,
            topic=target,
            payload=message.payload,
            key=message.key,
            metadata={**message.metadata, **hop},
        )
        assert await broker.submit([grown]) == [None]


async def test_a_batch_over_partitions_is_acknowledged_in_one_transaction(
    url: str, broker: KafkaTransport
) -> None:
    topic, target = unique(), unique("target")
    async with opened(url, options={"partitions": 3}) as member:
        wanted = settings(topic, atomic=True)
        subscription = await join(member, wanted)
        reading = await join(broker, settings(target, "reading"))
        for number in range(12):
            await publish(member, topic, b"%d" % number, key=b"%d" % number)
        first, *others = await take(subscription, 12)
        assert len({item.shard for item in (first, *others)}) == 3
        output = Message(id="sum", topic=target, payload=b"sum")
        settlement = Settlement(first, outputs=[output], others=others)
        assert list(await subscription.settle([settlement])) == [SettleResult.DONE]
        assert list(await subscription.settle([settlement])) == [SettleResult.DONE], "repeated"
        assert payloads(await take(reading, 1)) == [b"sum"]
        with pytest.raises(TimeoutError):
            await take(reading, 1, within=1.0)
    async with opened(url) as member:
        subscription = await join(member, wanted)
        with pytest.raises(TimeoutError):
            await take(subscription, 1, within=2.0)
