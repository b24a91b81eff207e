"""The order of a group that becomes ordered while messages are held, and after lost calls."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from protoflow.contract.spec import Ordering
from protoflow.message import Action, Settlement, SettleResult
from protoflow.transport import Transport
from protoflow.transports.redis import names
from protoflow.transports.redis.scripts import FETCH, RECOVER, Script

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
    take,
    topic,
)


async def one(subscription: Any) -> Any:
    (delivery,) = await subscription.receive(1, MEGABYTE)
    return delivery


@pytest.mark.parametrize("ending", ["settled", "its lease ends"])
async def test_a_key_that_two_members_hold_opens_when_both_are_done(
    transport: Transport, url: str, client: Any, ending: str
) -> None:
    name = topic()
    first: Any
    first, _ = await join(transport, name)
    second, _ = await join(transport, name)
    await publish(transport, *[message(name, b"%d" % n, key=b"k") for n in range(4)])
    one_held, other_held = await one(first), await one(second)
    async with opened(url) as later:
        ordered: Any
        ordered, _ = await join(later, name, ordering=Ordering.PER_KEY)
        await nothing(ordered, 0.3)
        if ending == "settled":
            await ack(first, one_held)
            expected = [b"1", b"2", b"3"]
        else:
            await client.xclaim(  # as if it had slept; the other's lease is young
                ordered.streams[0], "billing", first._who[1], 0, [one_held.receipt.id],
                idle=100_000, retrycount=1, justid=True,
            )  # fmt: skip
            await ordered._renew(())
            expected = [b"0", b"1", b"2", b"3"]
        await nothing(ordered, 0.3)
        again = Settlement(other_held, Action.NACK, failures=1)
        assert list(await second.settle([again])) == [SettleResult.DONE]
        batch = await take(ordered, len(expected))
        assert payloads(batch) == expected
        await ack(ordered, *batch)


async def test_a_group_with_much_becomes_ordered_in_parts(
    transport: Transport, url: str, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    holding: Any
    holding, _ = await join(transport, name, max_in_flight=2500)
    await publish(
        transport, *[message(name, b"%d" % n, key=b"k%d" % (n % 500)) for n in range(5000)]
    )
    held = await take(holding, 2500)
    waiting: Any
    waiting, _ = await join(transport, name, max_in_flight=2500)
    await waiting.settle([Settlement(each, Action.RELEASE) for each in await take(waiting, 2500)])
    async with opened(url) as later:
        calls = 0
        run = later._connection._evaluate  # type: ignore[attr-defined]

        async def counted(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            return await run(*arguments)

        monkeypatch.setattr(later._connection, "_evaluate", counted)  # type: ignore[attr-defined]
        ordered, _ = await join(later, name, ordering=Ordering.PER_KEY)
        stream = names.stream("protoflow", name, 0)
        async with asyncio.timeout(20):
            while await client.get(f"{stream}:mode:billing") != b"key":
                await nothing(ordered, 0.1)
        assert calls >= 5, "a call looks at a thousand entries"
        holders = f"{stream}:holders:billing"
        counts = {await client.hget(holders, lane) for lane in await client.hkeys(holders)}
        assert await client.hlen(holders) == 500
        assert counts == {f"{holding._who[1]} 5".encode()}
        await ack(holding, *held)
        assert await client.hlen(holders) == 0
        batch = await take(ordered, 2500)
        assert sorted(map(int, payloads(batch))) == [*range(2500, 5000)]
        await ack(ordered, *batch)


async def test_a_member_that_leaves_gives_all_back(transport: Transport, url: str) -> None:
    name = topic()
    await join(transport, name)
    await publish(transport, *[message(name, b"%d" % n) for n in range(2500)])
    async with opened(url) as other:
        leaving, _ = await join(other, name, max_in_flight=3000)
        await take(leaving, 2500)
    staying, _ = await join(transport, name, max_in_flight=3000)
    assert len(await take(staying, 2500)) == 2500


@pytest.mark.parametrize("late", [FETCH, RECOVER])
async def test_a_call_that_comes_after_its_successor_does_nothing(
    transport: Transport, late: Script
) -> None:
    name = topic()
    subscription: Any
    subscription, _ = await join(transport, name, ordering=Ordering.PER_KEY)
    call, lost = subscription._call, list[Any]()

    async def losing(script: Script, *arguments: Any) -> Any:
        """Loses the first call on its way; it comes when its successor was answered."""
        if script is late and not lost:
            lost.append(arguments)
            raise ConnectionResetError("on its way")
        answer = await call(script, *arguments)
        if lost and script is (RECOVER if late is FETCH else FETCH):
            with pytest.raises(Exception, match="OVERTAKEN"):
                await call(late, *lost[0])
            subscription._call = call
        return answer

    subscription._call = losing
    if late is RECOVER:
        subscription._unsure.add(0)
    await publish(transport, *[message(name, b"%d" % number, key=b"k") for number in range(4)])
    batch = await take(subscription, 4)
    assert payloads(batch) == [b"0", b"1", b"2", b"3"]
    assert list(await subscription.settle([Settlement(each) for each in batch])) == (
        [SettleResult.DONE] * 4
    )
    await nothing(subscription)


async def test_members_that_differ_in_order_take_what_the_group_says(
    transport: Transport, url: str, client: Any
) -> None:
    name = topic()
    unordered, _ = await join(transport, name)
    async with opened(url) as later:
        ordered, _ = await join(later, name, ordering=Ordering.PER_KEY)
        await publish(transport, *[message(name, b"%d" % n, key=b"k") for n in range(3)])
        held = await one(unordered)
        await nothing(ordered, 0.3)
        await ack(unordered, held)
        batch = await take(ordered, 2)
        assert payloads(batch) == [b"1", b"2"]
        mode = f"{names.stream('protoflow', name, 0)}:mode:billing"
        await end_redis(unordered)  # its renewal says that the group is not ordered
        assert await client.get(mode) == b"none"
        await end_redis(ordered)
        assert await client.get(mode) == b"key"
        again = await take(ordered, 2)
        assert payloads(again) == [b"1", b"2"]
        await ack(ordered, *again)
