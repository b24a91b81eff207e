"""Groups begin where they are told to; what is missing is named; lag is known."""

from __future__ import annotations

import asyncio

import pytest
from protoflow.contract.spec import Start
from protoflow.errors import TopologyError
from protoflow.transport import Lag, LagReader, Topology, TopologyMode

from tests.acceptance.bench import Bench, numbers, payloads

needs = pytest.mark.needs


@needs("retains")
async def test_a_group_that_starts_earliest_gets_what_was_published_before(bench: Bench) -> None:
    topic = bench.topic()
    await bench.transport.ensure(Topology(topics=(topic,)), TopologyMode.CREATE)
    await bench.send(topic, *numbers(0, 5))
    member = await bench.join(topic, start=Start.EARLIEST)
    await bench.send(topic, *numbers(5, 8))
    batch = await member.take(8)
    assert sorted(payloads(batch)) == numbers(0, 8)
    await member.ack(*batch)
    await member.nothing()


@needs("groups")
async def test_a_group_that_starts_latest_gets_what_comes(bench: Bench) -> None:
    topic = bench.topic()
    await bench.transport.ensure(Topology(topics=(topic,)), TopologyMode.CREATE)
    if bench.capabilities.retains:
        await bench.send(topic, *numbers(0, 5))
    member = await bench.join(topic, start=Start.LATEST)
    await bench.send(topic, *numbers(5, 8))
    batch = await member.take(3)
    assert sorted(payloads(batch)) == numbers(5, 8)
    await member.ack(*batch)
    await member.nothing()


@needs("at_least_once", "groups")
async def test_start_is_only_for_a_group_without_a_position(bench: Bench) -> None:
    topic = bench.topic()
    member = await bench.join(topic, start=Start.LATEST)
    await bench.send(topic, *numbers(0, 3))
    batch = await member.take(3)
    await member.ack(*batch)
    await member.subscription.stop()
    await bench.send(topic, *numbers(3, 5))
    await bench.reopen()
    member = await bench.join(topic, start=Start.LATEST)
    batch = await member.take(2, within=10)
    assert sorted(payloads(batch)) == numbers(3, 5)
    await member.ack(*batch)


@needs("retains", "durable")
async def test_what_nobody_took_survives_a_restart(bench: Bench) -> None:
    topic = bench.topic()
    await bench.transport.ensure(Topology(topics=(topic,)), TopologyMode.CREATE)
    await bench.send(topic, b"x")
    await bench.reopen()
    member = await bench.join(topic, start=Start.EARLIEST)
    await member.ack(*await member.take(1))


async def test_ensure_is_idempotent_and_verify_is_content(bench: Bench) -> None:
    topic = bench.topic()
    topology = Topology(subscriptions=(bench.settings(topic),), topics=(bench.topic("out"),))
    for mode in (TopologyMode.CREATE, TopologyMode.CREATE, TopologyMode.VERIFY, TopologyMode.NONE):
        await bench.transport.ensure(topology, mode)


async def test_verify_names_what_is_missing(bench: Bench) -> None:
    if bench.target.name == "nats":
        pytest.skip("capability: durable")
    topic = bench.topic("absent")
    topology = Topology(subscriptions=(bench.settings(topic),))
    with pytest.raises(TopologyError) as caught:
        await bench.transport.ensure(topology, TopologyMode.VERIFY)
    assert "absent" in str(caught.value)


@needs("broadcast")
async def test_a_broadcast_reaches_every_member(bench: Bench) -> None:
    topic = bench.topic()
    first = await bench.join(topic, broadcast=True, start=Start.LATEST)
    second = await bench.join(
        topic, transport=await bench.connect(), broadcast=True, start=Start.LATEST
    )
    await bench.send(topic, *numbers(0, 5))
    for member in (first, second):
        batch = await member.take(5)
        assert sorted(payloads(batch)) == numbers(0, 5)
        await member.ack(*batch)


@needs("lag")
async def test_lag_counts_what_is_not_settled(bench: Bench) -> None:
    reader = bench.transport
    assert isinstance(reader, LagReader)
    topic = bench.topic()
    member = await bench.join(topic)
    assert (await reader.lag(topic, "billing")).messages == 0
    await bench.send(topic, *numbers(0, 10))
    lag = await _lag_of(bench, topic, 10)
    assert lag.seconds is None or 0 <= lag.seconds < 30 * bench.target.patience
    batch = await member.take(10)
    await member.ack(*batch[:4])
    await _lag_of(bench, topic, 6)
    await member.ack(*batch[4:])
    await _lag_of(bench, topic, 0)


async def _lag_of(bench: Bench, topic: str, messages: int) -> Lag:
    """Brokers tell it with a delay."""
    assert isinstance(bench.transport, LagReader)
    async with asyncio.timeout(10 * bench.target.patience):
        while (lag := await bench.transport.lag(topic, "billing")).messages != messages:
            await asyncio.sleep(0.05)
    return lag
