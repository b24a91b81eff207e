"""Messages arrive unchanged."""

from __future__ import annotations

import pytest

from protoflow.errors import PublishRefusedError
from protoflow.testing.transports.harness import MEGABYTE, TransportHarness, needs

METADATA = {
    "plain": "value",
    "ce_type": "shop.v1.OrderPlaced",
    "ce_source": "/shop/ünïcode with spaces",
    "ce_subject": '50 % "off"',
    "content-type": "application/protobuf",
    "correlation_id": "c-1",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "pf_attempt": "2",
    "long": "x" * 5000,
}


async def test_metadata_come_as_they_were_sent(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.publish(harness.message(topic, b"x", metadata=METADATA))
    (delivery,) = await member.take(1)
    got = dict(delivery.message.metadata)
    assert {name: got.get(name) for name in METADATA} == METADATA
    assert delivery.size > 5000
    await member.ack(delivery)


@pytest.mark.parametrize("value", ["", "żółć", "日本語", "🙂", "a\tb", "100%", "a=b;c,d"])
async def test_odd_metadata_values(harness: TransportHarness, value: str) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.publish(harness.message(topic, b"x", metadata={"odd": value, "after": "1"}))
    (delivery,) = await member.take(1)
    assert delivery.message.metadata["odd"] == value
    assert delivery.message.metadata["after"] == "1"
    await member.ack(delivery)


@pytest.mark.parametrize("key", [None, b"k", b"\x00\xff\n,", "ключ".encode(), b"k" * 200])
async def test_keys_come_as_they_were_sent(harness: TransportHarness, key: bytes | None) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.publish(harness.message(topic, b"x", key=key))
    (delivery,) = await member.take(1)
    assert delivery.message.key == key
    await member.ack(delivery)


@pytest.mark.parametrize("id", ["01JD0000000000000000000000", "an id, of 'one's own'", "ид-7"])
async def test_ids_come_as_they_were_sent(harness: TransportHarness, id: str) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.publish(harness.message(topic, b"x", id=id))
    (delivery,) = await member.take(1)
    assert delivery.message.id == id
    await member.ack(delivery)


async def test_every_byte_comes_as_it_was_sent(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    sent = bytes(range(256)) * 4
    await harness.send(topic, sent, b"")
    first, second = await member.take(2)
    assert {first.message.payload, second.message.payload} == {sent, b""}
    await member.ack(first, second)


@needs("tombstones")
async def test_a_tombstone_is_not_an_empty_payload(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.publish(harness.message(topic, None, key=b"k", id="tombstone"))
    await harness.publish(harness.message(topic, b"", key=b"k", id="empty"))
    batch = await member.take(2)
    got = {delivery.message.id: delivery.message.payload for delivery in batch}
    assert got == {"tombstone": None, "empty": b""}
    await member.ack(*batch)


async def test_nearly_a_megabyte(harness: TransportHarness) -> None:
    """The usual limit of brokers is 1 MiB, headers included."""
    topic = harness.topic()
    member = await harness.join(topic)
    limit = harness.capabilities.max_message_bytes or MEGABYTE
    sent = bytes(range(256)) * ((min(limit, MEGABYTE) - 10_240) // 256)
    await harness.send(topic, sent)
    (delivery,) = await member.take(1, within=15)
    assert delivery.message.payload == sent
    assert delivery.size >= len(sent)
    await member.ack(delivery)


async def test_what_is_for_publishing_only_does_not_arrive(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    await harness.publish(harness.message(topic, b"x", deduplication_id="d-1", mandatory=True))
    (delivery,) = await member.take(1)
    message = delivery.message
    assert (message.delay, message.deduplication_id, message.mandatory) == (0.0, None, False)
    await member.ack(delivery)


async def test_a_message_too_large_is_refused_and_the_others_are_taken(
    harness: TransportHarness,
) -> None:
    limit = harness.capabilities.max_message_bytes
    if limit is None or limit > 64 * MEGABYTE:
        pytest.skip("capability: max_message_bytes")
    topic = harness.topic()
    member = await harness.join(topic)
    small = [harness.message(topic, b"1"), harness.message(topic, b"2")]
    large = harness.message(topic, bytes(limit + 1))
    submitting = harness.transport.submit([small[0], large, small[1]])
    batch = await member.take(2)
    assert {delivery.message.id for delivery in batch} == {message.id for message in small}
    await member.ack(*batch)
    errors = await submitting
    assert errors[0] is None
    assert isinstance(errors[1], PublishRefusedError)
    assert errors[2] is None
