"""An invalid message or settlement does not affect others in the same call."""

from __future__ import annotations

from typing import Any

import pytest

from protoflow.errors import PublishError
from protoflow.message import Action, Message, Settlement, SettleResult
from protoflow.testing.transports.harness import TransportHarness, needs, numbers, payloads

#: Invalid messages that users publish by mistake, and that no transport can send.
BAD: dict[str, dict[str, Any]] = {
    "payload is text": {"payload": "text"},
    "payload is a number": {"payload": 17},
    "key is text": {"key": "text"},
    "metadata has a number": {"metadata": {"a": 1}},
    "metadata has None": {"metadata": {"a": None}},
    "metadata has an invalid name": {"metadata": {None: "a"}},
}


def bad(harness: TransportHarness, topic: str, kind: str) -> Message:
    message = harness.message(topic, b"bad")
    for name, value in BAD[kind].items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize("kind", BAD)
async def test_one_bad_message_between_good_ones(harness: TransportHarness, kind: str) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    good = [harness.message(topic, payload) for payload in numbers(0, 4)]
    submitted = [good[0], bad(harness, topic, kind), *good[1:3], bad(harness, topic, kind), good[3]]
    submitting = harness.transport.submit(submitted)
    batch = await member.take(4)
    assert sorted(payloads(batch)) == numbers(0, 4)
    await member.ack(*batch)
    errors = await submitting
    assert [isinstance(error, PublishError) for error in errors] == [
        message not in good for message in submitted
    ]
    assert [error for error in errors if not isinstance(error, PublishError)] == [None] * 4
    await harness.send(topic, b"later")
    await member.ack(*await member.take(1))
    await member.nothing()


@needs("atomic")
@pytest.mark.parametrize("kind", BAD)
async def test_one_bad_output_between_good_settlements(
    harness: TransportHarness, kind: str
) -> None:
    topic, out = harness.topic(), harness.topic("out")
    member, reader = await harness.join(topic, atomic=True), await harness.join(out)
    await harness.send(topic, *numbers(0, 4))
    batch = await member.take(4)
    outputs = [[harness.message(out, delivery.message.payload)] for delivery in batch]
    outputs[1].append(bad(harness, out, kind))
    results = await member.settle(
        *(
            Settlement(delivery, outputs=output)
            for delivery, output in zip(batch, outputs, strict=True)
        )
    )
    assert results == [
        SettleResult.DONE, SettleResult.REFUSED, SettleResult.DONE, SettleResult.DONE,
    ]  # fmt: skip
    expected = sorted(payloads([batch[0], *batch[2:]]))
    assert sorted(payloads(await reader.take(3))) == expected
    await reader.nothing()
    await member.ack(batch[1])
    await member.nothing()


@needs("at_least_once")
async def test_settled_ones_between_others(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic, lease=2.0)
    await harness.send(topic, *numbers(0, 4))
    batch = await member.take(4)
    await member.ack(batch[1])
    results = await member.settle(*(Settlement(delivery) for delivery in batch))
    assert results[0] is results[2] is results[3] is SettleResult.DONE
    assert results[1] in (SettleResult.DONE, SettleResult.LOST)
    await harness.reopen()
    member = await harness.join(topic, lease=2.0)
    await member.nothing(2.5)


@needs("at_least_once")
@pytest.mark.parametrize("action", list(Action))
async def test_a_repeated_settlement_changes_nothing(
    harness: TransportHarness, action: Action
) -> None:
    """The result must not be UNKNOWN either, because the runtime would repeat it for ever."""
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.send(topic, *numbers(0, 3))
    batch = await member.take(3)
    settlements = [Settlement(delivery, action, failures=1) for delivery in batch]
    assert await member.settle(*settlements) == [SettleResult.DONE] * 3
    again = [await member.settle(*settlements) for _ in range(2)]
    assert again[0] == again[1]
    assert {*again[0]} <= {SettleResult.DONE, SettleResult.LOST}
    if action is not Action.ACK:
        batch = await member.take(3)
        assert sorted(payloads(batch)) == numbers(0, 3)
        await member.ack(*batch)
    await member.nothing()


@needs("atomic")
async def test_a_repeated_settlement_publishes_its_outputs_once(harness: TransportHarness) -> None:
    topic, out = harness.topic(), harness.topic("out")
    member, reader = await harness.join(topic, atomic=True), await harness.join(out)
    await harness.send(topic, b"in")
    (delivery,) = await member.take(1)
    settlement = Settlement(delivery, outputs=[harness.message(out, b"1")])
    assert await member.settle(settlement) == [SettleResult.DONE]
    for _ in range(2):
        (again,) = await member.settle(settlement)
        assert again in (SettleResult.DONE, SettleResult.LOST)
    await reader.ack(*await reader.take(1))
    await reader.nothing()
    await member.nothing()


@needs("atomic")
async def test_the_acknowledgements_of_a_batch_go_with_its_outputs(
    harness: TransportHarness,
) -> None:
    topic, out = harness.topic(), harness.topic("out")
    member, reader = await harness.join(topic, atomic=True, lease=2.0), await harness.join(out)
    await harness.send(topic, *numbers(0, 5))
    first, *others = await member.take(5)
    outputs = [harness.message(out, b"sum")]
    settlement = Settlement(first, outputs=outputs, others=others)
    assert await member.settle(settlement) == [SettleResult.DONE]
    assert payloads(await reader.take(1)) == [b"sum"]
    await reader.nothing()
    await harness.reopen()
    member = await harness.join(topic, atomic=True, lease=2.0)
    await member.nothing(2.5)


@needs("atomic")
async def test_a_batch_with_one_lost_delivery_does_nothing(harness: TransportHarness) -> None:
    topic, out = harness.topic(), harness.topic("out")
    member, reader = await harness.join(topic, atomic=True), await harness.join(out)
    await harness.send(topic, *numbers(0, 4))
    first, lost, *others = await member.take(4)
    await member.ack(lost)
    settlement = Settlement(first, outputs=[harness.message(out, b"sum")], others=[lost, *others])
    assert await member.settle(settlement) == [SettleResult.LOST]
    await reader.nothing()
    await member.ack(first, *others)
    await member.nothing()


@needs("atomic")
async def test_a_batch_with_a_refused_output_is_held_as_a_whole(harness: TransportHarness) -> None:
    topic, out = harness.topic(), harness.topic("out")
    member, reader = await harness.join(topic, atomic=True), await harness.join(out)
    await harness.send(topic, *numbers(0, 3))
    first, *others = await member.take(3)
    outputs = [harness.message(out, b"good"), bad(harness, out, "payload is text")]
    settlement = Settlement(first, outputs=outputs, others=others)
    assert await member.settle(settlement) == [SettleResult.REFUSED]
    await reader.nothing()
    await member.ack(first, *others)
    await member.nothing()
