"""Outputs and settlement become visible together, or not at all."""

from __future__ import annotations

import pytest

from protoflow.errors import TransportError
from protoflow.message import Settlement, SettleResult
from protoflow.testing.transports.harness import TransportHarness, needs, payloads
from protoflow.transport import Transactional


@needs("atomic")
async def test_outputs_go_out_with_the_acknowledgement(harness: TransportHarness) -> None:
    topic, out = harness.topic(), harness.topic("out")
    member, reader = await harness.join(topic, atomic=True), await harness.join(out)
    await harness.send(topic, b"in")
    (delivery,) = await member.take(1)
    outputs = [harness.message(out, b"1"), harness.message(out, b"2")]
    assert await member.settle(Settlement(delivery, outputs=outputs)) == [SettleResult.DONE]
    batch = await reader.take(2)
    assert payloads(batch) == [b"1", b"2"]
    await reader.ack(*batch)
    await member.nothing()


@needs("atomic", "leases")
async def test_the_outputs_of_a_lost_delivery_never_appear(harness: TransportHarness) -> None:
    topic, out = harness.topic(), harness.topic("out")
    reader = await harness.join(out)
    first = await harness.join(topic, atomic=True, lease=0.9, max_hold=0.9)
    await harness.send(topic, b"in")
    (delivery,) = await first.take(1)
    second = await harness.join(topic, transport=await harness.connect(), atomic=True)
    (again,) = await second.take(1, within=10)
    outputs = [harness.message(out, b"x")]
    assert await first.settle(Settlement(delivery, outputs=outputs)) == [SettleResult.LOST]
    await reader.nothing()
    assert await second.settle(Settlement(again, outputs=outputs)) == [SettleResult.DONE]
    await reader.ack(*await reader.take(1))


@needs("atomic")
async def test_a_transaction_commits_together(harness: TransportHarness) -> None:
    transport = harness.transport
    if not isinstance(transport, Transactional):
        pytest.skip("capability: transactional")
    topic, out = harness.topic(), harness.topic("out")
    member, reader = await harness.join(topic), await harness.join(out)
    await harness.send(topic, b"in")
    (delivery,) = await member.take(1)
    async with transport.transaction() as transaction:
        await transaction.publish(harness.message(out, b"1"), harness.message(out, b"2"))
        await transaction.settle(Settlement(delivery))
        await reader.nothing()
    batch = await reader.take(2)
    assert payloads(batch) == [b"1", b"2"]
    await reader.ack(*batch)
    await member.nothing()
    assert await member.settle(Settlement(delivery)) == [SettleResult.DONE], "as before"


@needs("atomic")
async def test_a_transaction_rolls_back_together(harness: TransportHarness) -> None:
    transport = harness.transport
    if not isinstance(transport, Transactional):
        pytest.skip("capability: transactional")
    topic, out = harness.topic(), harness.topic("out")
    member, reader = await harness.join(topic), await harness.join(out)
    await harness.send(topic, b"in")
    (delivery,) = await member.take(1)

    async def attempt(then: Exception | None) -> None:
        async with transport.transaction() as transaction:
            await transaction.publish(harness.message(out, b"1"))
            await transaction.settle(Settlement(delivery))
            if then is not None:
                raise then

    with pytest.raises(ZeroDivisionError):
        await attempt(ZeroDivisionError())
    await reader.nothing()
    await member.ack(delivery)
    with pytest.raises(TransportError):
        await attempt(None)  # the delivery was settled
    await reader.nothing()
