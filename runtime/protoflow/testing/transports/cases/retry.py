"""Failed runs: a message is given back with a delay, its count is stored, old receipts fail."""

from __future__ import annotations

import asyncio
import time

import pytest

from protoflow.message import Settlement, SettleResult
from protoflow.testing.transports.harness import MEGABYTE, TransportHarness, needs, payloads

#: Seconds by which the clocks of broker and client may differ.
SKEW = 0.02


@needs("broker_retry")
async def test_a_nack_with_a_delay_comes_not_early(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, b"x")
    (delivery,) = await member.take(1)
    started = time.monotonic()
    await member.nack(delivery, delay=1.0)
    patience = 10 + harness.capabilities.retry_lateness
    (again,) = await member.take(1, within=patience)
    waited = time.monotonic() - started
    assert again.message.id == delivery.message.id
    assert (
        1.0 - SKEW
        <= waited
        < 1.0 + harness.capabilities.retry_lateness + 3 * (harness.target.patience)
    )
    await member.ack(again)
    await member.nothing()


@needs("at_least_once")
async def test_a_nack_without_delay_comes_at_once(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, b"x")
    (delivery,) = await member.take(1)
    await member.nack(delivery)
    (again,) = await member.take(1)
    assert again.message.id == delivery.message.id
    await member.ack(again)
    await member.nothing()


@needs("persists_attempts")
async def test_failed_runs_are_remembered_over_a_restart(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, b"x")
    (delivery,) = await member.take(1)
    assert (delivery.failures, delivery.first_failure, delivery.attempt) == (0, 0.0, 1)
    await member.nack(delivery, failures=3, first_failure=1_700_000_000.5)
    (delivery,) = await member.take(1)
    assert (delivery.failures, delivery.attempt) == (3, 4)
    assert delivery.first_failure == pytest.approx(1_700_000_000.5, abs=0.01)
    await member.release(delivery)
    await harness.reopen()
    member = await harness.join(topic)
    (delivery,) = await member.take(1)
    assert delivery.failures == 3
    assert delivery.first_failure == pytest.approx(1_700_000_000.5, abs=0.01)
    await member.ack(delivery)


@needs("counts_deliveries")
async def test_deliveries_are_counted(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, b"x")
    for count in (1, 2, 3):
        (delivery,) = await member.take(1)
        assert delivery.deliveries == count
        await member.nack(delivery, failures=count)
    (delivery,) = await member.take(1)
    assert delivery.deliveries == 4
    await member.ack(delivery)


@needs("counts_deliveries")
async def test_work_lost_with_its_process_is_counted(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, lease=2.0)
    await harness.send(topic, b"x")
    (delivery,) = await member.take(1)
    await harness.reopen()
    member = await harness.join(topic, lease=2.0)
    (again,) = await member.take(1, within=15)
    assert again.message.id == delivery.message.id
    assert again.deliveries == delivery.deliveries + 1
    assert again.failures == 0
    await member.ack(again)


@needs("delayed_publish")
async def test_a_delayed_publish_comes_not_early(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    started = time.monotonic()
    await harness.publish(harness.message(topic, b"later", delay=1.0))
    await harness.publish(harness.message(topic, b"now"))
    (now,) = await member.take(1)
    assert now.message.payload == b"now"
    assert time.monotonic() - started < 1.0 or harness.target.patience > 1
    (later,) = await member.take(1, within=10)
    assert time.monotonic() - started >= 1.0 - SKEW
    assert later.message.payload == b"later"
    assert later.message.delay == 0.0
    await member.ack(now, later)


@needs("delayed_publish", "retains", "durable")
async def test_a_delay_survives_a_restart(harness: TransportHarness) -> None:
    topic = harness.topic()
    started = time.monotonic()
    await harness.join(topic)
    await harness.publish(harness.message(topic, b"later", delay=1.5))
    await harness.reopen()
    member = await harness.join(topic)
    (later,) = await member.take(1, within=10)
    assert time.monotonic() - started >= 1.5 - SKEW
    await member.ack(later)


@needs("leases")
async def test_a_lease_held_too_long_goes_to_another_and_is_fenced(
    harness: TransportHarness,
) -> None:
    topic = harness.topic()
    first = await harness.join(topic, lease=1.0, max_hold=1.5)
    await harness.send(topic, b"x")
    (delivery,) = await first.take(1)
    second = await harness.join(topic, transport=await harness.connect(), lease=1.0, max_hold=30.0)
    (again,) = await second.take(1, within=10)
    assert again.message.id == delivery.message.id
    await asyncio.sleep(0.7 * harness.target.patience)
    assert first.listener.lost == [delivery]
    assert await first.settle(Settlement(delivery)) == [SettleResult.LOST]
    await second.ack(again)
    await second.nothing()


@needs("leases")
async def test_a_lease_is_renewed_while_the_handler_runs(harness: TransportHarness) -> None:
    topic = harness.topic()
    first = await harness.join(topic, lease=1.0)
    await harness.send(topic, b"x")
    (delivery,) = await first.take(1)
    second = await harness.join(topic, transport=await harness.connect(), lease=1.0)
    receiving = asyncio.ensure_future(second.subscription.receive(1, MEGABYTE))
    done, _ = await asyncio.wait([receiving], timeout=3.0)
    assert not done
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)
    assert first.listener.lost == []
    await first.ack(delivery)


@needs("at_least_once")
async def test_neighbours_of_a_failed_message_are_not_held_up(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, b"bad", b"1", b"2")
    batch = await member.take(3)
    bad = next(delivery for delivery in batch if delivery.message.payload == b"bad")
    await member.ack(*(delivery for delivery in batch if delivery is not bad))
    await member.nack(bad)
    (again,) = await member.take(1)
    assert payloads([again]) == [b"bad"]
    await member.ack(again)
