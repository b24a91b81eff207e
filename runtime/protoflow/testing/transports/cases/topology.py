"""Groups start at the configured position; verify names missing parts; lag is counted."""

from __future__ import annotations

import asyncio

import pytest

from protoflow.contract.spec import Start
from protoflow.errors import TopologyError
from protoflow.testing.transports.harness import TransportHarness, needs, numbers, payloads
from protoflow.transport import Lag, LagReader, Topology, TopologyMode


@needs("retains")
async def test_a_group_that_starts_earliest_gets_what_was_published_before(
    harness: TransportHarness,
) -> None:
    topic = harness.topic()
    await harness.transport.ensure(Topology(topics=(topic,)), TopologyMode.CREATE)
    await harness.send(topic, *numbers(0, 5))
    member = await harness.join(topic, start=Start.EARLIEST)
    await harness.send(topic, *numbers(5, 8))
    batch = await member.take(8)
    assert sorted(payloads(batch)) == numbers(0, 8)
    await member.ack(*batch)
    await member.nothing()


@needs("groups")
async def test_a_group_that_starts_latest_gets_what_comes(harness: TransportHarness) -> None:
    topic = harness.topic()
    await harness.transport.ensure(Topology(topics=(topic,)), TopologyMode.CREATE)
    if harness.capabilities.retains:
        await harness.send(topic, *numbers(0, 5))
    member = await harness.join(topic, start=Start.LATEST)
    await harness.send(topic, *numbers(5, 8))
    batch = await member.take(3)
    assert sorted(payloads(batch)) == numbers(5, 8)
    await member.ack(*batch)
    await member.nothing()


@needs("at_least_once", "groups")
async def test_start_is_only_for_a_group_without_a_position(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, start=Start.LATEST)
    await harness.send(topic, *numbers(0, 3))
    batch = await member.take(3)
    await member.ack(*batch)
    await member.subscription.stop()
    await harness.send(topic, *numbers(3, 5))
    await harness.reopen()
    member = await harness.join(topic, start=Start.LATEST)
    batch = await member.take(2, within=10)
    assert sorted(payloads(batch)) == numbers(3, 5)
    await member.ack(*batch)


@needs("retains", "durable")
async def test_what_nobody_took_survives_a_restart(harness: TransportHarness) -> None:
    topic = harness.topic()
    await harness.transport.ensure(Topology(topics=(topic,)), TopologyMode.CREATE)
    await harness.send(topic, b"x")
    await harness.reopen()
    member = await harness.join(topic, start=Start.EARLIEST)
    await member.ack(*await member.take(1))


async def test_ensure_is_idempotent_and_verify_is_content(harness: TransportHarness) -> None:
    topic = harness.topic()
    topology = Topology(subscriptions=(harness.settings(topic),), topics=(harness.topic("out"),))
    for mode in (TopologyMode.CREATE, TopologyMode.CREATE, TopologyMode.VERIFY, TopologyMode.NONE):
        await harness.transport.ensure(topology, mode)


@needs("at_least_once", "dead_letters")
async def test_verify_names_what_is_missing(harness: TransportHarness) -> None:
    topic = harness.topic("absent")
    topology = Topology(subscriptions=(harness.settings(topic),))
    with pytest.raises(TopologyError) as caught:
        await harness.transport.ensure(topology, TopologyMode.VERIFY)
    assert "absent" in str(caught.value)


@needs("broadcast")
async def test_a_broadcast_reaches_every_member(harness: TransportHarness) -> None:
    topic = harness.topic()
    first = await harness.join(topic, broadcast=True, start=Start.LATEST)
    second = await harness.join(
        topic, transport=await harness.connect(), broadcast=True, start=Start.LATEST
    )
    await harness.send(topic, *numbers(0, 5))
    for member in (first, second):
        batch = await member.take(5)
        assert sorted(payloads(batch)) == numbers(0, 5)
        await member.ack(*batch)


@needs("lag")
async def test_lag_counts_what_is_not_settled(harness: TransportHarness) -> None:
    reader = harness.transport
    assert isinstance(reader, LagReader)
    topic = harness.topic()
    member = await harness.join(topic)
    assert (await reader.lag(topic, harness.group())).messages == 0
    await harness.send(topic, *numbers(0, 10))
    lag = await _lag_of(harness, topic, 10)
    assert lag.seconds is None or 0 <= lag.seconds < 30 * harness.target.patience
    batch = await member.take(10)
    await member.ack(*batch[:4])
    await _lag_of(harness, topic, 6)
    await member.ack(*batch[4:])
    await _lag_of(harness, topic, 0)


async def _lag_of(harness: TransportHarness, topic: str, messages: int) -> Lag:
    """Waits for a lag, because brokers report it with a delay."""
    assert isinstance(harness.transport, LagReader)
    async with asyncio.timeout(10 * harness.target.patience):
        while (lag := await harness.transport.lag(topic, harness.group())).messages != messages:
            await asyncio.sleep(0.05)
    return lag
