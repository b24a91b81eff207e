"""Transactions: outputs and progress together, or neither."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import OffsetAndMetadata
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transport import Isolation, SubscriptionSettings, Topology, TopologyMode
from protoflow.transports.kafka.commit_metadata import CommitMetadata
from protoflow.transports.kafka.transactions import Transactions
from protoflow.transports.kafka.transport import KafkaTransport

from tests.brokers import url_of
from tests.transports.kafka.harness import (
    MEGABYTE,
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

COPIER = Path(__file__).with_name("copier.py")


@pytest.fixture(scope="module")
def url() -> str:
    found = url_of("kafka")
    if found is None or "idempotence=false" in found:
        pytest.skip("broker: kafka (Apache's own)")
    return found


def atomic(topic: str, **fields: Any) -> SubscriptionSettings:
    return settings(topic, atomic=True, **fields)


def copied(delivery: Delivery, topic: str, payload: bytes | None = None) -> Settlement:
    payload = delivery.message.payload if payload is None else payload
    return Settlement(
        delivery, outputs=[Message(id=delivery.message.id, topic=topic, payload=payload)]
    )


async def test_outputs_and_progress_become_visible_together(
    url: str, broker: KafkaTransport
) -> None:
    topic, target = unique(), unique("target")
    subscription = await join(broker, atomic(topic))
    reading = await join(broker, settings(target))
    await publish(broker, topic, *[b"%d" % number for number in range(6)])
    batch = await take(subscription, 6)
    chosen = [batch[0], batch[2], batch[5]]
    results = await subscription.settle([copied(delivery, target) for delivery in chosen])
    assert list(results) == [SettleResult.DONE] * 3
    assert sorted(payloads(await take(reading, 3))) == [b"0", b"2", b"5"]
    await broker.close()
    async with opened(url) as later:
        subscription = await join(later, atomic(topic))
        assert payloads(await take(subscription, 3)) == [b"1", b"3", b"4"]


async def test_settling_without_outputs_commits_too(url: str, broker: KafkaTransport) -> None:
    topic = unique()
    subscription = await join(broker, atomic(topic))
    await publish(broker, topic, b"0", b"1")
    batch = await take(subscription, 2)
    await ack(subscription, batch[0])
    again = await subscription.settle([Settlement(batch[0])])
    assert list(again) == [SettleResult.DONE], "settled already is answered as before"
    await broker.close()
    async with opened(url) as later:
        assert payloads(await take(await join(later, atomic(topic)), 1)) == [b"1"]


async def test_a_refused_output_refuses_its_settlement_and_no_other(
    broker: KafkaTransport,
) -> None:
    topic, target = unique(), unique("target")
    subscription = await join(broker, atomic(topic))
    reading = await join(broker, settings(target))
    await publish(broker, topic, b"0", b"1")
    first, second = await take(subscription, 2)
    results = await subscription.settle(
        [copied(first, target, bytes(2 * MEGABYTE)), copied(second, target)]
    )
    assert list(results) == [SettleResult.REFUSED, SettleResult.DONE]
    assert payloads(await take(reading, 1)) == [b"1"]
    assert list(await subscription.settle([copied(first, target)])) == [SettleResult.DONE]
    assert payloads(await take(reading, 1)) == [b"0"]


async def test_a_failed_transaction_leaves_nothing_behind_and_the_next_one_works(
    url: str,
) -> None:
    topic, target = unique(), unique("target")
    missing = unique("missing")
    async with opened(url, options={"transaction_timeout": 2.0}) as broker:
        subscription = await join(broker, atomic(topic))
        reading = await join(broker, settings(target))
        await publish(broker, topic, b"0")
        (delivery,) = await take(subscription, 1)
        settlement = copied(delivery, target)
        settlement.outputs = [
            *settlement.outputs,
            Message(id="x", topic=missing, payload=b"never"),
        ]
        (result,) = await subscription.settle([settlement])
        assert result is SettleResult.UNKNOWN
        with pytest.raises(TimeoutError):
            await take(reading, 1, within=1.0)
        assert list(await subscription.settle([copied(delivery, target)])) == [SettleResult.DONE]
        assert payloads(await take(reading, 1)) == [b"0"]


async def test_an_owner_of_before_is_fenced(url: str, broker: KafkaTransport) -> None:
    topic, target = unique(), unique("target")
    zombie = await join(broker, atomic(topic))
    reading = await join(broker, settings(target))
    await publish(broker, topic, b"0")
    (delivery,) = await take(zombie, 1)
    # What a stopped process is when it goes on: its partition has a new owner, and it does
    # not know. Here the new owner takes the same id by hand.
    from aiokafka import AIOKafkaProducer

    taker = AIOKafkaProducer(
        bootstrap_servers=url.partition("://")[2], transactional_id=f"billing/{topic}/0"
    )
    await taker.start()
    try:
        results = await zombie.settle([copied(delivery, target, b"zombie")])
        assert list(results) == [SettleResult.LOST]
        with pytest.raises(TimeoutError):
            await take(reading, 1, within=1.5)
    finally:
        await taker.stop()


async def test_outputs_of_a_subscription_that_is_not_atomic_go_out_first(
    broker: KafkaTransport,
) -> None:
    topic, target = unique(), unique("target")
    subscription = await join(broker, settings(topic))
    reading = await join(broker, settings(target))
    await publish(broker, topic, b"0", b"1", b"2")
    first, second, third = await take(subscription, 3)
    results = await subscription.settle(
        [copied(first, target), copied(second, target, bytes(2 * MEGABYTE)), Settlement(third)]
    )
    assert list(results) == [SettleResult.DONE, SettleResult.REFUSED, SettleResult.DONE]
    assert payloads(await take(reading, 1)) == [b"0"]


@pytest.mark.timeout(180)
async def test_killed_again_and_again_each_output_is_there_once(
    url: str, broker: KafkaTransport
) -> None:
    topic = unique()
    count = 1500
    wanted = atomic(topic)
    copy = settings(f"{topic}.copy", "copying")
    await broker.ensure(Topology(subscriptions=(wanted, copy)), TopologyMode.CREATE)
    await publish(broker, topic, *[b"%d" % number for number in range(count)])
    reading = await join(broker, copy)
    seen: Counter[bytes] = Counter()

    async def read() -> None:
        while True:
            batch = await subscription_batch()
            seen.update(payloads(batch))

    async def subscription_batch() -> list[Delivery]:
        batch = list(await reading.receive(500, MEGABYTE))
        await ack(reading, *batch)
        return batch

    reader = asyncio.ensure_future(read())
    loop = asyncio.get_running_loop()
    for life in (0.3, 0.5, 0.2, 0.4, 8.0):
        command = [sys.executable, str(COPIER), url, topic, json.dumps(QUICK), str(life)]
        run = partial(subprocess.run, command, capture_output=True, text=True, check=False)
        done = await loop.run_in_executor(None, run)
        assert done.returncode == 9, done.stderr
    await asyncio.sleep(1.0)
    reader.cancel()
    assert seen.total() >= count * 0.9, "the last life is long enough for nearly everything"
    assert [payload for payload, times in seen.items() if times != 1] == []
    # What the last life held when it died was never finished: somebody else does it.
    subscription = await join(broker, wanted)
    while len(seen) < count:
        for delivery in await take(subscription, 1):
            assert seen[delivery.message.payload or b""] == 0
            seen[delivery.message.payload or b""] += 1
            await ack(subscription, delivery)


async def test_who_is_fenced_by_a_stranger_takes_its_partition_again(
    url: str, broker: KafkaTransport
) -> None:
    """The group knows who has the partition: a zombie that dies before it hears of that must
    leave nobody standing still."""
    from aiokafka import AIOKafkaProducer

    topic, target = unique(), unique("target")
    subscription = await join(broker, atomic(topic))
    reading = await join(broker, settings(target, "reading"))
    await publish(broker, topic, b"0", b"1")
    first, second = await take(subscription, 2)
    assert list(await subscription.settle([copied(first, target)])) == [SettleResult.DONE]
    zombie = AIOKafkaProducer(
        bootstrap_servers=url.partition("://")[2], transactional_id=f"billing/{topic}/0"
    )
    await zombie.start()
    await zombie.stop()
    assert list(await subscription.settle([copied(second, target)])) == [SettleResult.LOST]
    (again,) = await take(subscription, 1)
    assert again.message.payload == b"1"
    assert list(await subscription.settle([copied(again, target)])) == [SettleResult.DONE]
    assert sorted(payloads(await take(reading, 2))) == [b"0", b"1"]


async def test_whom_the_group_has_put_out_takes_no_id_again(
    broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was frozen in a transaction would fence the rightful owner."""
    topic, target = unique(), unique("target")
    subscription = await join(broker, atomic(topic))
    await broker.ensure(Topology(topics=(target,)), TopologyMode.CREATE)
    await publish(broker, topic, b"0")
    (delivery,) = await take(subscription, 1)
    started = []

    async def broken(*_: object) -> None:
        raise KafkaConnectionError("frozen")

    async def put_out() -> bool:
        return False

    async def start(_self: Transactions, tp: TopicPartition) -> None:
        started.append(tp)

    monkeypatch.setattr(Transactions, "_transact", broken)
    transactions = subscription._membership.transactions  # type: ignore[attr-defined]  # ours
    monkeypatch.setattr(transactions, "_is_member", put_out)
    monkeypatch.setattr(Transactions, "_started", start)
    assert list(await subscription.settle([copied(delivery, target)])) == [SettleResult.LOST]
    assert started == []


async def test_a_commit_whose_answer_got_lost_is_looked_up_and_not_made_again(
    broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, target = unique(), unique("target")
    subscription = await join(broker, atomic(topic))
    reading = await join(broker, settings(target, "reading"))
    await publish(broker, topic, b"0")
    (delivery,) = await take(subscription, 1)
    transact, start = Transactions._transact, Transactions._started
    troubles = ["answer", "broker", "broker"]

    async def lost(self: Transactions, *arguments: Any) -> None:
        await transact(self, *arguments)
        if "answer" in troubles:
            troubles.remove("answer")
            raise KafkaConnectionError("the answer got lost")

    async def away(self: Transactions, tp: TopicPartition) -> Any:
        if "broker" in troubles:
            troubles.remove("broker")
            raise KafkaConnectionError("the broker is away")
        return await start(self, tp)

    monkeypatch.setattr(Transactions, "_transact", lost)
    monkeypatch.setattr(Transactions, "_started", away)
    settlement = copied(delivery, target)
    results: list[SettleResult] = []
    while SettleResult.DONE not in results:
        results += await subscription.settle([settlement])  # as the runtime repeats it
    assert results[0] is SettleResult.UNKNOWN
    assert set(results[:-1]) == {SettleResult.UNKNOWN}
    assert payloads(await take(reading, 1)) == [b"0"]
    with pytest.raises(TimeoutError):
        await take(reading, 1, within=1.5)


async def test_positions_are_those_after_the_owner_before_was_fenced(
    url: str, broker: KafkaTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last transaction may end while the new owner joins; aiokafka has asked before that."""
    from aiokafka import AIOKafkaProducer

    topic = unique()
    await (await join(broker, atomic(topic))).stop()
    await publish(broker, topic, *[b"%d" % number for number in range(10)])
    tp = TopicPartition(topic, 0)
    zombie = AIOKafkaProducer(
        bootstrap_servers=url.partition("://")[2], transactional_id=f"billing/{topic}/0"
    )
    await zombie.start()
    await zombie.begin_transaction()
    place = OffsetAndMetadata(5, CommitMetadata(writer="zombie", starts=1).encode(5))
    await zombie.send_offsets_to_transaction({tp: place}, "billing")
    start = Transactions._started

    async def late(self: Transactions, wanted: TopicPartition) -> Any:
        if wanted == tp:
            await asyncio.sleep(1.0)  # others are taken first
            await zombie.commit_transaction()
        return await start(self, wanted)

    monkeypatch.setattr(Transactions, "_started", late)
    async with opened(url) as taker:
        subscription = await join(taker, atomic(topic))
        assert payloads(await take(subscription, 5)) == [b"%d" % number for number in range(5, 10)]
        with pytest.raises(TimeoutError):
            await take(subscription, 1, within=1.0)
    await zombie.stop()


async def test_start_marks_are_written_in_transactions_of_their_own(
    url: str, broker: KafkaTransport
) -> None:
    topic = unique()
    subscription = await join(broker, atomic(topic))
    await publish(broker, topic, b"0", b"1")
    first, second = await take(subscription, 2)
    assert isinstance(subscription, Isolation)
    await subscription.mark(first)
    await subscription.mark(second)
    await subscription.mark(second)
    await subscription.clear(first)
    await broker.close()
    async with opened(url) as later:
        subscription = await join(later, atomic(topic))
        assert isinstance(subscription, Isolation)
        first, second = await take(subscription, 2)
        assert (first.suspect, second.suspect) == (False, True)
        assert await subscription.isolate(second) == (second, 2)
        await ack(subscription, first, second)
