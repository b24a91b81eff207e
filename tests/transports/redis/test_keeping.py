"""What lies at the server: nothing that nobody needs, and everything that somebody does."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from protoflow.contract.spec import Ordering, Start
from protoflow.message import Action, Message, Settlement, SettleResult
from protoflow.transport import LagReader, Topology, TopologyMode, Transport
from protoflow.transports.redis import names
from protoflow.transports.redis.scripts import RENEW

from tests.transports.nats.harness import (
    MEGABYTE,
    ack,
    join,
    message,
    nothing,
    opened,
    payloads,
    publish,
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
        await first._call(RENEW, 0, 0, 1000)  # as if it had slept
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
