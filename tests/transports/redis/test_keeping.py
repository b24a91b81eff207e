"""What lies at the server: nothing that nobody needs, and everything that somebody does."""

from __future__ import annotations

import asyncio
import os
import zlib
from typing import Any

import pytest
from protoflow.contract.spec import Ordering, Start
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import ConnectionFailedError
from protoflow.message import Action, Message, Settlement, SettleResult
from protoflow.transport import LagReader, Topology, TopologyMode, Transport
from protoflow.transports.redis import names

from tests.acceptance.sessions import end_redis
from tests.transports.nats.harness import (
    MEGABYTE,
    ack,
    join,
    message,
    nothing,
    opened,
    payloads,
    publish,
    settings_of,
    take,
    topic,
)

#: `make redis-memory` acknowledges a million.
COUNT = int(os.environ.get("PROTOFLOW_REDIS_MESSAGES", "20000"))


def stream_of(name: str, shard: int = 0) -> str:
    return names.stream("protoflow", name, shard)


async def test_memory_stays_flat_also_beside_an_entry_that_is_stuck(
    transport: Transport, client: Any
) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    await publish(transport, message(name, b"stuck"))
    (stuck,) = await take(subscription, 1)
    sizes = []
    for number in range(0, COUNT, 500):
        await publish(transport, *[message(name, bytes(100)) for _ in range(500)])
        left = 500
        while left:
            batch = await subscription.receive(min(left, 250), MEGABYTE)
            await ack(subscription, *batch)
            left -= len(batch)
        if number % (COUNT // 10) == 0:
            sizes.append(await client.memory_usage(stream_of(name), samples=0))
    assert await client.xlen(stream_of(name)) == 1
    assert max(sizes) < 100_000, sizes
    await ack(subscription, stuck)
    assert await client.xlen(stream_of(name)) == 0
    left_over = [key async for key in client.scan_iter(f"{stream_of(name)}*")]
    assert sorted(key.decode() for key in left_over) == sorted(
        [stream_of(name), f"{stream_of(name)}:topic", f"{stream_of(name)}:mode:billing"]
    )


async def test_an_entry_is_removed_when_the_last_group_is_done_with_it(
    transport: Transport, client: Any
) -> None:
    name = topic()
    first, _ = await join(transport, name, "billing")
    second, _ = await join(transport, name, "mailing", ordering=Ordering.PER_KEY)
    await publish(transport, message(name, b"1", key=b"k"), message(name, b"2", key=b"k"))
    await ack(first, *await take(first, 2))
    assert await client.xlen(stream_of(name)) == 2, "the other has not got them"
    one, two = await take(second, 2)
    again = [Settlement(each, Action.NACK, delay=0.3, failures=1) for each in (one, two)]
    assert list(await second.settle(again)) == [SettleResult.DONE] * 2
    assert await client.xlen(stream_of(name)) == 2, "they wait in the other"
    await ack(second, *await take(second, 2))
    assert await client.xlen(stream_of(name)) == 0


async def test_a_broadcast_whose_process_was_killed_holds_nothing_back(
    transport: Transport, client: Any, url: str
) -> None:
    name = topic()
    lasting: Any
    dead: Any
    lasting, _ = await join(transport, name)
    async with opened(url) as other:
        dead, _ = await join(other, name, "screens", broadcast=True, start=Start.LATEST)
        dead._left = True  # as if it had been killed
    await publish(transport, *[message(name, b"%d" % number) for number in range(3)])
    await ack(lasting, *await take(lasting, 3))
    assert await client.xlen(stream_of(name)) == 3
    await client.zadd(f"{stream_of(name)}:broadcasts", {dead.group: 1})  # long ago
    await lasting._renew(())
    async with asyncio.timeout(10):
        while await client.xlen(stream_of(name)):
            await asyncio.sleep(0.02)
    assert [each["name"] for each in await client.xinfo_groups(stream_of(name))] == [b"billing"]


async def test_what_was_claimed_by_a_call_that_got_no_answer_comes_in_its_turn(
    transport: Transport,
) -> None:
    name = topic()
    subscription: Any
    subscription, _ = await join(transport, name, ordering=Ordering.PER_KEY)
    await publish(transport, *[message(name, b"%d" % number, key=b"k") for number in range(4)])
    call = subscription._call

    async def unanswered(script: Any, *arguments: Any) -> Any:
        await call(script, *arguments)
        subscription._call = call
        raise ConnectionResetError("no answer")

    subscription._call = unanswered
    batch = await take(subscription, 4)
    assert payloads(batch) == [b"0", b"1", b"2", b"3"]
    assert {each.deliveries for each in batch} == {1}
    await ack(subscription, *batch)
    await nothing(subscription)


async def test_a_lease_that_ended_moves_its_lane_and_the_old_holder_is_fenced(
    transport: Transport, url: str
) -> None:
    name = topic()
    fields: Any = {"ordering": Ordering.PER_KEY, "lease": 30.0}
    first: Any
    first, _ = await join(transport, name, **fields)
    await publish(transport, *[message(name, b"%d" % number, key=b"k") for number in range(3)])
    held = await take(first, 2)
    async with opened(url) as other:
        second, _ = await join(other, name, **fields)
        await nothing(second, 0.3)
        await end_redis(first)  # as if it had slept
        batch = await take(second, 3)
        assert payloads(batch) == [b"0", b"1", b"2"]
        assert [each.deliveries for each in batch] == [2, 2, 1]
        settled = await first.settle([Settlement(each) for each in held])
        assert list(settled) == [SettleResult.LOST] * 2
        await ack(second, *batch)


async def test_a_lag_that_the_server_does_not_know_is_counted(
    transport: Transport, client: Any
) -> None:
    name = topic()
    assert isinstance(transport, LagReader)
    first, _ = await join(transport, name, "billing")
    await publish(transport, *[message(name, b"%d" % number) for number in range(5)])
    await ack(first, *await take(first, 2))
    await join(transport, name, "mailing")
    entries = await client.xrange(stream_of(name))
    await client.xdel(stream_of(name), entries[-2][0])  # now Redis reports no lag
    assert (await transport.lag(name, "billing")).messages == 2
    assert (await transport.lag(name, "mailing")).messages == len(entries) - 1


async def test_a_topic_that_nobody_consumes_is_bounded_and_its_dead_letters_are_not(
    url: str, client: Any
) -> None:
    name = topic()
    dead = f"{name}..billing..dead"
    async with opened(url, retained_messages=100) as transport:
        await join(transport, f"{name}.other", "billing", dead_letter_topics=(dead,))
        await transport.ensure(Topology(topics=(name,)), TopologyMode.CREATE)
        for where in (name, dead):
            await publish(transport, *[message(where, bytes(50)) for _ in range(1000)])
        publisher: Any = transport
        await publisher._publisher.trim()
    assert 100 <= await client.xlen(stream_of(name)) < 400
    assert await client.xlen(stream_of(dead)) == 1000


async def test_messages_of_others_are_read(transport: Transport, client: Any) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    stream = stream_of(name)
    await client.xadd(stream, {"ce_type": "shop.v1.OrderPlaced", "_payload": b"\x00\xff"})
    await client.xadd(stream, {"note": b"\xff\xfe", "_payload": b"1"})
    await client.xadd(stream, {"_due": "soon", "_unknown": "kept", "_payload": b"2"})
    foreign, broken, odd = await take(subscription, 3)
    assert foreign.message.payload == b"\x00\xff"
    assert foreign.message.metadata == {"ce_type": "shop.v1.OrderPlaced"}
    assert foreign.message.id == f"{name}:0:{foreign.position}"
    assert "not UTF-8" in (broken.unreadable or "")
    assert broken.message.payload == b"1"
    assert odd.message.metadata == {"_unknown": "kept"}
    await ack(subscription, foreign, broken, odd)


async def test_metadata_that_look_like_fields_of_ours_stay_metadata(transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name)
    metadata = {"_to": "mailing", "_due": "9999999999999", "__x": "1", "_payload": "no"}
    await publish(transport, Message(id="1", topic=name, payload=b"x", metadata=metadata))
    (delivery,) = await take(subscription, 1)
    assert delivery.message.metadata == metadata
    assert delivery.message.payload == b"x"
    await ack(subscription, delivery)


async def test_past_what_waits_for_others_a_call_goes_only_so_far(
    transport: Transport, client: Any, url: str
) -> None:
    name = topic()
    first, _ = await join(transport, name, ordering=Ordering.PER_KEY)
    await publish(transport, *[message(name, b"%d" % n, key=b"k") for n in range(2500)])
    (held,) = await first.receive(1, MEGABYTE)
    async with opened(url) as other:
        second: Any
        second, _ = await join(other, name, ordering=Ordering.PER_KEY)
        waiting = f"{stream_of(name)}:waiting:billing"
        assert await second._fetch(100, MEGABYTE) == []
        assert await client.zcard(waiting) == 1000
        await publish(transport, message(name, b"free", key=b"other"))
        (free,) = await take(second, 1)
        assert free.message.payload == b"free"
        await ack(second, free)
    await ack(first, held)
    assert payloads(await take(first, 2499)) == [b"%d" % n for n in range(1, 2500)]


async def test_what_a_shard_that_another_holds_has_stays_unread(
    transport: Transport, client: Any, url: str
) -> None:
    name = topic()
    fields: Any = {"ordering": Ordering.PER_PARTITION}
    first, _ = await join(transport, name, **fields)
    await publish(transport, *[message(name, b"%d" % n) for n in range(50)])
    (held,) = await first.receive(1, MEGABYTE)
    async with opened(url) as other:
        second: Any
        second, _ = await join(other, name, **fields)
        assert await second._fetch(100, MEGABYTE) == []
        assert await client.zcard(f"{stream_of(name)}:waiting:billing") == 0
        assert await second.available() == 0
        await ack(first, held)
        batch = await take(second, 49)
        assert payloads(batch) == [b"%d" % n for n in range(1, 50)]
        await ack(second, *batch)


async def test_a_lane_whose_entry_was_deleted_by_hand_is_free_again(
    transport: Transport, client: Any, url: str
) -> None:
    name = topic()
    gone: Any
    async with opened(url) as other:
        gone, _ = await join(other, name, ordering=Ordering.PER_KEY)
        await publish(transport, message(name, b"lost", key=b"k"))
        await take(gone, 1)
        gone._left = True  # as if it had been killed
    await client.xtrim(stream_of(name), maxlen=0)
    subscription: Any
    subscription, _ = await join(transport, name, ordering=Ordering.PER_KEY)
    await publish(transport, message(name, b"next", key=b"k"))
    await nothing(subscription, 0.2)
    await end_redis(subscription)  # its lease has ended
    (delivery,) = await take(subscription, 1)
    assert delivery.message.payload == b"next"
    await ack(subscription, delivery)


async def test_a_group_that_is_gone_after_a_call_without_an_answer_is_made_again(
    transport: Transport, client: Any
) -> None:
    name = topic()
    subscription: Any
    subscription, _ = await join(transport, name, broadcast=True, start=Start.LATEST)
    subscription._unsure.add(0)
    await client.delete(stream_of(name), f"{stream_of(name)}:topic")
    waiting = asyncio.ensure_future(take(subscription, 1))
    async with asyncio.timeout(10):
        while not await client.exists(stream_of(name)):
            await asyncio.sleep(0.02)
    assert await client.hget(f"{stream_of(name)}:topic", "version") == b"1"
    await publish(transport, message(name, b"after"))
    await ack(subscription, *await waiting)


async def test_a_shard_that_does_not_answer_keeps_nothing_of_the_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    async with opened(url, shards=2) as transport:
        subscription: Any
        subscription, _ = await join(transport, name)
        call = subscription._call

        async def answered(script: Any, shard: int, *arguments: Any) -> Any:
            if shard == 1:
                raise ConnectionFailedError("its node is down")
            return await call(script, shard, *arguments)

        monkeypatch.setattr(subscription, "_call", answered)
        key = next(b"%d" % n for n in range(9) if zlib.crc32(b"%d" % n) % 2 == 0)
        await publish(transport, message(name, b"here", key=key))
        subscription._first = 1  # the next call begins with shard 0
        (delivery,) = await subscription._fetch(10, MEGABYTE)
        subscription.leases.add([delivery], subscription._clock.monotonic())
        subscription.leases.sweep(subscription._clock.monotonic(), len, len)
        renewed = subscription.leases._seen[delivery.receipt]
        renewed.renewed -= 20
        before = renewed.renewed
        with pytest.raises(ConnectionFailedError):
            await subscription._renew([delivery])
        assert renewed.renewed > before + 19
        assert not subscription.health.healthy
        await ack(subscription, delivery)
        monkeypatch.undo()
        await nothing(subscription, 1.0)
        assert subscription.health.healthy


async def test_a_hundred_subscriptions_and_more_have_a_connection_each(
    transport: Transport,
) -> None:
    name = topic()
    joined: list[Any] = [(await join(transport, name, f"g{n}"))[0] for n in range(110)]
    receiving = [asyncio.ensure_future(take(each, 1)) for each in joined]
    async with asyncio.timeout(10):
        while not all(each._tasks for each in joined):
            await asyncio.sleep(0.05)
    await publish(transport, message(name))
    for subscription, received in zip(joined, receiving, strict=True):
        await ack(subscription, *await received)


async def test_a_dead_letter_topic_is_made_as_one_whoever_writes_first(
    url: str, client: Any
) -> None:
    name = topic()
    settings = settings_of(name)
    async with opened(url, shards=4) as transport:
        await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.NONE)
        await publish(transport, message(f"{name}..billing..dead"))
    record = f"{stream_of(f'{name}..billing..dead')}:topic"
    assert await client.hgetall(record) == {b"version": b"1", b"shards": b"1", b"kept": b"1"}


async def test_the_same_id_of_two_groups_is_replayed_to_each(transport: Transport) -> None:
    name = topic()
    dead = f"{name}.dead"
    billing, _ = await join(transport, name, "billing", dead_letter_topics=(dead,))
    mailing, _ = await join(transport, name, "mailing", dead_letter_topics=(dead,))
    for group in ("billing", "mailing"):
        metadata = {"pf_original_topic": name, "pf_group": group}
        await publish(transport, Message(id="1", topic=dead, payload=b"x", metadata=metadata))
    assert await dead_letters_of(transport).replay(dead) == 2
    for subscription in (billing, mailing):
        await ack(subscription, *await take(subscription, 1, 5))
        await nothing(subscription, 0.2)
