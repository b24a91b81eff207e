"""What JetStream lends: settled until the consumer's leader has it, lost, marked, counted."""

from __future__ import annotations

import asyncio
import signal
import time

import pytest
from protoflow.contract.spec import Ordering
from protoflow.errors import TransportError
from protoflow.message import Action, Delivery, Settlement, SettleResult
from protoflow.transport import Availability, Isolation, Transport
from protoflow.transports.nats.jetstream.consumers import Gone
from protoflow.transports.nats.names import JetStreamNames

from tests.brokers.base import RunningBroker
from tests.faults.proxy import FaultProxy
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

# Settlements


async def test_a_settlement_without_answer_is_unknown_and_done_when_it_is_repeated(
    url: str,
) -> None:
    async with FaultProxy.to(url) as proxy, opened(proxy.url) as transport:
        name = topic()
        subscription, _ = await join(transport, name, lease=20.0)
        await publish(transport, *[message(name, b"%d" % n) for n in range(3)])
        taken = await take(subscription, 3)
        settlements = [Settlement(delivery) for delivery in taken]
        proxy.freeze()
        results = await asyncio.wait_for(subscription.settle(settlements), 12)
        assert list(results) == [SettleResult.UNKNOWN] * 3
        proxy.thaw()
        results = await asyncio.wait_for(subscription.settle(settlements), 12)
        assert list(results) == [SettleResult.DONE] * 3
        again = await asyncio.wait_for(subscription.settle(settlements), 12)
        assert list(again) == [SettleResult.LOST] * 3, "nothing of them is held any more"


async def test_each_settlement_of_a_flush_has_a_result_of_its_own(transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name, lease=20.0)
    await publish(transport, *[message(name, b"%d" % n) for n in range(4)])
    first, second, third, fourth = await take(subscription, 4)
    await ack(subscription, second)
    strange = Settlement(fourth, Action.NACK, delay=float("nan"))
    results = await subscription.settle(
        [Settlement(first), Settlement(second), Settlement(third), strange]
    )
    done, lost = SettleResult.DONE, SettleResult.LOST
    assert list(results) == [done, lost, done, done]
    assert payloads(await take(subscription, 1)) == [b"3"]


async def test_what_was_acknowledged_over_a_lost_connection_does_not_run_again(url: str) -> None:
    """The acknowledgement is lost, its lease ends, and the server lends the message again."""
    async with FaultProxy.to(url) as proxy, opened(proxy.url) as transport:
        name = topic()
        subscription, _ = await join(transport, name, lease=3.0)
        await publish(transport, message(name, b"done"))
        taken = await take(subscription, 1)
        proxy.cut()
        settling = subscription.settle([Settlement(taken[0])])
        assert list(await asyncio.wait_for(settling, 10)) == [SettleResult.UNKNOWN]
        await asyncio.sleep(3.0)
        assert list(await subscription.settle([Settlement(taken[0])])) == [SettleResult.LOST]
        proxy.restore()
        async with opened(url) as other:
            await publish(other, message(name, b"new"))
        assert payloads(await take(subscription, 1)) == [b"new"]
        await nothing(subscription, 4.0)


# Stalls


async def test_an_ordered_lane_goes_back_as_a_whole_when_one_of_it_is_lost(
    transport: Transport,
) -> None:
    name = topic()
    subscription, listener = await join(transport, name, ordering=Ordering.PER_KEY, lease=3.0)
    await publish(transport, message(name, b"first", key=b"k"))
    (first,) = await take(subscription, 1)
    await asyncio.sleep(0.9)
    await publish(transport, message(name, b"second", key=b"k"))
    (second,) = await take(subscription, 1)
    time.sleep(2.55)  # the loop stands still: the lease of the first ends, not that of the second
    await asyncio.sleep(0.3)
    assert {delivery.message.payload for delivery in listener.lost} == {b"first", b"second"}
    results = await subscription.settle([Settlement(second), Settlement(first)])
    assert list(results) == [SettleResult.LOST] * 2
    assert payloads(await take(subscription, 2)) == [b"first", b"second"]


@pytest.mark.parametrize("window", [4, 256])
async def test_a_stall_beyond_the_lease_neither_wedges_lanes_nor_breaks_their_order(
    url: str, window: int
) -> None:
    async with opened(url, ordered_window=window) as transport:
        name = topic()
        subscription, _ = await join(
            transport, name, ordering=Ordering.PER_KEY, lease=1.5, max_in_flight=8
        )
        sent = [(key, number) for number in range(20) for key in (b"a", b"b")]
        await publish(
            transport, *[message(name, b"%b%d" % (k, n), key=k, id=f"{k!r}{n}") for k, n in sent]
        )
        first: dict[bytes, list[bytes]] = {b"a": [], b"b": []}
        held: list[Delivery] = await take(subscription, 3)
        time.sleep(2.0)
        async with asyncio.timeout(30):
            while True:
                results = await subscription.settle([Settlement(delivery) for delivery in held])
                for delivery, result in zip(held, results, strict=True):
                    text = delivery.message.payload or b""
                    if result is SettleResult.DONE and text not in first[text[:1]]:
                        first[text[:1]].append(text)
                if sum(map(len, first.values())) == len(sent):
                    break
                held = list(await subscription.receive(8, MEGABYTE))
        for key, found in first.items():
            assert found == [b"%b%d" % (key, number) for number in range(20)]


async def test_what_came_during_a_stall_is_taken_when_it_is_lent_afresh(url: str) -> None:
    async with opened(url) as transport:
        name = topic()
        subscription, _ = await join(transport, name, lease=2.0)
        client = transport._connection.client  # type: ignore[attr-defined]
        stream = JetStreamNames("protoflow").stream(name)
        # It comes while the loop stands still, for longer than it is lent.
        for number in range(5):
            await client.publish(f"protoflow.{name}", b"%d" % number)
        await asyncio.sleep(0)
        time.sleep(2.5)
        taken = await take(subscription, 5)
        api = transport._api  # type: ignore[attr-defined]
        info = await api.consumer(stream, "billing")
        assert info["num_ack_pending"] == 5
        await ack(subscription, *taken)
        assert sorted(payloads(taken)) == [b"%d" % number for number in range(5)]


@pytest.mark.parametrize("handed", [True, False])
async def test_what_may_be_anothers_by_now_is_not_given_back(
    transport: Transport, handed: bool
) -> None:
    """The server would take it from the other, and hand it out twice."""
    name = topic()
    subscription, _ = await join(transport, name, lease=30.0)
    await publish(transport, *[message(name, b"%d" % n) for n in range(3)])
    taken = await take(subscription, 3)
    renewer = subscription._renewer  # type: ignore[attr-defined]
    for lease in renewer.leases:
        lease.renewed -= 31.0  # as long as this process stood still
    if handed:
        results = await subscription.settle([Settlement(each, Action.RELEASE) for each in taken])
        assert list(results) == [SettleResult.LOST] * 3
    else:
        renewer.give_back(tuple(renewer.leases))
    await nothing(subscription, 0.5)


# Marks


@pytest.mark.parametrize("ordering", [Ordering.NONE, Ordering.PER_KEY])
async def test_start_marks_survive_the_process_and_are_cleared(
    url: str, ordering: Ordering
) -> None:
    name = topic()
    settings = {"ordering": ordering, "lease": 1.5}
    for expected in (0, 1, 2):
        async with opened(url) as transport:
            assert transport.capabilities.proves_killers
            subscription, _ = await join(transport, name, f"g.{name}", **settings)
            assert isinstance(subscription, Isolation)
            if not expected:
                await publish(transport, message(name, b"killer", key=b"k"))
                await publish(transport, message(name, b"other", key=b"l"))
            taken = await take(subscription, 2)
            killer = next(one for one in taken if one.message.payload == b"killer")
            other = next(one for one in taken if one.message.payload == b"other")
            assert await subscription.isolate(None) is None
            assert await subscription.isolate(killer) == (killer, expected)
            assert await subscription.isolate(other) == (other, 0)
            if expected < 2:
                await subscription.mark(killer)
            else:
                await subscription.clear(killer)
                await subscription.clear(killer)
                assert await subscription.isolate(killer) == (killer, 0)
        await asyncio.sleep(1.6 if expected < 2 else 0)  # the process died: its leases end


async def test_a_mark_of_another_message_at_the_same_place_is_none(url: str) -> None:
    """A stream that is made anew counts from the beginning."""
    async with opened(url) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        assert isinstance(subscription, Isolation)
        await publish(transport, message(name, b"one"))
        (first,) = await take(subscription, 1)
        await subscription.mark(first)
        await subscription.mark(first)
        assert await subscription.isolate(first) == (first, 2)
        await ack(subscription, first)
        other = Delivery(
            message=first.message,
            shard=first.shard,
            position=first.position,
            time=first.time + 1,
            receipt=first.receipt,
        )
        assert await subscription.isolate(other) == (other, 0)


async def test_no_mark_is_written_while_nobody_answers(own: RunningBroker) -> None:
    async with opened(own.url.replace("nats://", "jetstream://")) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        assert isinstance(subscription, Isolation)
        await publish(transport, message(name))
        (delivery,) = await take(subscription, 1)
        own.signal(signal.SIGSTOP)
        try:
            for call in (subscription.mark, subscription.clear, subscription.isolate):
                with pytest.raises(TransportError):
                    await asyncio.wait_for(call(delivery), 15)
        finally:
            own.signal(signal.SIGCONT)


async def test_what_could_be_handed_out_is_known(transport: Transport) -> None:
    name = topic()
    subscription, _ = await join(transport, name, max_in_flight=2)
    assert isinstance(subscription, Availability)
    assert await subscription.available() == 0
    await publish(transport, *[message(name) for _ in range(7)])
    await take(subscription, 2)
    assert await subscription.available() == 5


# What passes


async def test_a_server_that_cannot_answer_for_a_moment_ends_no_subscription(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = topic()
    subscription, listener = await join(transport, name)
    api = transport._api  # type: ignore[attr-defined]
    asked = 0

    async def unavailable(*_: object) -> None:
        nonlocal asked
        asked += 1
        raise TransportError("JetStream system temporarily unavailable")

    monkeypatch.setattr(api, "consumer", unavailable)
    puller = subscription.pullers[0]  # type: ignore[attr-defined]
    for _ in range(3):
        subscription.answered(puller, "503", gone=True)  # type: ignore[attr-defined]
        await asyncio.sleep(0.05)
    assert asked == 3
    assert listener.health[0][0] is False
    monkeypatch.undo()
    await publish(transport, message(name, b"later"))
    assert payloads(await take(subscription, 1)) == [b"later"]
    assert listener.health[-1] == (True, "")


async def test_a_subscription_that_ended_hoards_nothing(url: str) -> None:
    async with opened(url) as one, opened(url) as two:
        name = topic()
        first, _ = await join(one, name, lease=3.0, max_in_flight=64)
        second, _ = await join(two, name, lease=3.0, max_in_flight=256)
        first._fail(Gone("the position is gone"))  # type: ignore[attr-defined]
        with pytest.raises(TransportError, match="position is gone"):
            await first.receive(1, 1)
        await publish(one, *[message(name, b"%d" % number) for number in range(200)])
        taken = await take(second, 200, within=20)
        assert len({*payloads(taken)}) == 200


# The end


@pytest.mark.parametrize("kind", ["nats", "jetstream"])
async def test_a_frozen_server_holds_up_no_end(own: RunningBroker, kind: str) -> None:
    async with opened(own.url.replace("nats://", f"{kind}://")) as transport:
        name = topic()
        subscription, _ = await join(transport, name)
        await publish(transport, *[message(name) for _ in range(5)])
        taken = await take(subscription, 2)
        own.signal(signal.SIGSTOP)
        try:
            settling = subscription.settle([Settlement(delivery) for delivery in taken])
            stopping = asyncio.create_task(subscription.stop())
            await asyncio.wait({stopping}, timeout=0.5)
            stopping.cancel()  # as the service does at its deadline
            began = time.monotonic()
            await transport.close()
            assert time.monotonic() - began < 5.0
            assert all(result is not None for result in await asyncio.wait_for(settling, 6))
        finally:
            own.signal(signal.SIGCONT)
        left = [task for task in asyncio.all_tasks() if "nats" in task.get_name()]
        assert left == []
