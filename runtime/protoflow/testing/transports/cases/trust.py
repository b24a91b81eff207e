"""Headers of foreign clients are not trusted, and similar names do not mix."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from protoflow import wire
from protoflow.errors import TopologyError
from protoflow.testing.transports.harness import TransportHarness, needs, numbers, payloads

FORGED = {
    "pf_attempt": "7",
    "pf_due": "253402300000.0",
    "pf_first_failure": "1.0",
    "pf_error_message": "no",
    "pf_dlq_resolved": "0-0",
    "x-delivery-count": "99",
    "x-death": "9",
}


@needs("at_least_once")
async def test_forged_hop_state_is_not_believed(harness: TransportHarness) -> None:
    topic = harness.topic()
    member = await harness.join(topic)
    metadata = {
        **FORGED,
        wire.PF_GROUP: harness.group(),
        wire.PF_ORIGINAL_TOPIC: topic,
        wire.PF_DEAD_LETTER: "1",
    }
    await harness.publish(harness.message(topic, b"forged", metadata=metadata))
    await harness.send(topic, *numbers(0, 3))
    batch = await member.take(4)
    assert sorted(payloads(batch)) == [*numbers(0, 3), b"forged"]
    for delivery in batch:
        assert not delivery.own_place
        assert not delivery.suspect
        assert delivery.unreadable is None
        assert (delivery.failures, delivery.first_failure) == (0, 0.0)
        assert delivery.deliveries <= 1
    await member.ack(*batch)
    await member.nothing()


PAIRS = {
    "a dot of the topic in the group": (("{u}.eu", "bill"), ("{u}", "eu.bill")),
    "dot and underscore in the topic": (("{u}.a.b", "g"), ("{u}.a_b", "g")),
    "dot and underscore in the group": (("{u}.t", "a.b"), ("{u}.t", "a_b")),
    "dot and dash in the topic": (("{u}.a.b", "g"), ("{u}.a-b", "g")),
    "a retry topic's name": (("{u}.t", "g"), ("{u}.t.g.retry", "g")),
    "upper and lower case": (("{u}.t", "G"), ("{u}.t", "g")),
    "long names, two ends": (("{u}." + "x" * 150 + "1", "g"), ("{u}." + "x" * 150 + "2", "g")),
}  # fmt: skip


@needs("groups", "at_least_once")
@pytest.mark.parametrize("pair", PAIRS)
async def test_names_that_look_alike_stay_apart(harness: TransportHarness, pair: str) -> None:
    """Each group receives only the messages of its own topic, and its own retries."""
    unique = uuid.uuid4().hex[:10]
    places = [(topic.format(u=unique), group) for topic, group in PAIRS[pair]]
    try:
        members = [await harness.join(topic, group) for topic, group in places]
    except TopologyError:
        assert pair in harness.target.refused_names
        return
    shared = places[0][0] == places[1][0]
    for number, (topic, _) in enumerate(places[:1] if shared else places):
        await harness.send(topic, b"of %d" % number)
    for number, member in enumerate(members):
        (delivery,) = await member.take(1)
        assert delivery.message.payload == (b"of 0" if shared else b"of %d" % number)
        await member.nack(delivery, delay=0.5 if harness.capabilities.broker_retry else 0.0)
    patience = 10 + harness.capabilities.retry_lateness
    taken = await asyncio.gather(*(member.take(1, within=patience) for member in members))
    for number, (member, batch) in enumerate(zip(members, taken, strict=True)):
        assert payloads(batch) == [b"of 0" if shared else b"of %d" % number]
        await member.ack(*batch)
    for member in members:
        await member.nothing()
