"""Replays to an ordered group: among its messages, and nobody else's."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest
from protoflow import wire
from protoflow.contract.spec import Ordering, Start
from protoflow.dead_letters import dead_letters_of
from protoflow.errors import TopologyError
from protoflow.message import Message
from protoflow.transport import Topology, TopologyMode, Transport
from protoflow.transport.lag import LagReader
from protoflow.transport.message_finder import MessageFinder, MessageQuery
from protoflow.transport.topic_reader import TopicReader
from protoflow.transports.nats.names import JetStreamNames

from tests.transports.nats.harness import (
    MEGABYTE,
    ack,
    join,
    message,
    nothing,
    opened,
    payloads,
    publish,
    settings_of,
    take,
    topic,
)

KEYS = 4


def _dead_letter(name: str, number: int, group: str) -> Message:
    metadata = {wire.PF_GROUP: group, wire.PF_ORIGINAL_TOPIC: name, wire.PF_DEAD_LETTER: "true"}
    return message(
        f"{name}..{group}..dead",
        b"%d" % number,
        id=f"id-{number}",
        key=b"k%d" % (number % KEYS),
        metadata=metadata,
    )


async def _replay(transport: Transport, name: str, group: str, *numbers: int) -> None:
    await publish(transport, *[_dead_letter(name, number, group) for number in numbers])
    replayed = await dead_letters_of(transport).replay(f"{name}..{group}..dead")
    assert replayed == len(numbers)


async def _is_at(transport: Transport, name: str, group: str, waiting: int) -> None:
    assert isinstance(transport, LagReader)
    async with asyncio.timeout(10):
        while (await transport.lag(name, group)).messages != waiting:
            await asyncio.sleep(0.02)


async def test_no_key_is_in_two_processes_at_once_in_any_shard(url: str) -> None:
    name = topic()
    group = f"g.{name}"
    log: list[int] = []
    running: set[bytes | None] = set()

    async def work(member: Any) -> None:
        while True:
            for delivery in await member.receive(8, MEGABYTE):
                key = delivery.message.key
                assert key not in running
                running.add(key)
                await asyncio.sleep(0.002)
                number = int(delivery.message.payload or b"")
                log.append(number)
                running.remove(key)
                await ack(member, delivery)

    async with opened(url, shards=2) as one, opened(url, shards=2) as two:
        transports = (one, two)
        members = [(await join(t, name, group, ordering=Ordering.PER_KEY))[0] for t in transports]
        workers = [asyncio.create_task(work(member)) for member in members]
        new = [message(name, b"%d" % n, key=b"k%d" % (n % KEYS)) for n in range(100, 180)]
        publishing = asyncio.create_task(publish(one, *new))
        await _replay(two, name, group, *range(40))
        await publishing
        async with asyncio.timeout(30):
            while len(log) < 120 and not any(worker.done() for worker in workers):
                await asyncio.sleep(0.02)
        for worker in workers:
            worker.cancel()
        results = await asyncio.gather(*workers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results), results
    for first, stop in ((0, 40), (100, 180)):
        for key in range(KEYS):
            lane = [n for n in log if first <= n < stop and n % KEYS == key]
            assert lane == [n for n in range(first, stop) if n % KEYS == key]


async def test_others_of_the_topic_neither_get_nor_count_nor_show_a_replay(
    transport: Transport,
) -> None:
    name, began = topic(), time.time()
    group, other = f"g.{name}", f"o.{name}"
    member, _ = await join(transport, name, group, ordering=Ordering.PER_KEY)
    strangers = [
        (await join(transport, name, other, ordering=Ordering.PER_KEY))[0],
        (await join(transport, name, f"u.{name}"))[0],
        (await join(transport, name, f"b.{name}", broadcast=True))[0],
    ]
    await _replay(transport, name, group, 1)
    (delivery,) = await take(member, 1)
    assert (delivery.message.id, delivery.message.topic) == ("id-1", name)
    assert delivery.own_place
    await _is_at(transport, name, group, 1)
    await ack(member, delivery)
    await _is_at(transport, name, group, 0)
    for stranger in strangers:
        await nothing(stranger, 0.2)
    await _is_at(transport, name, other, 0)
    assert isinstance(transport, TopicReader)
    read = transport.read_topic(name, start=Start.EARLIEST, follow=False)
    assert [record async for record in read] == []
    assert isinstance(transport, MessageFinder)
    settings = [settings_of(name, each, ordering=Ordering.PER_KEY) for each in (group, other)]
    found = await transport.find_message(
        MessageQuery(id="id-1", topics=(name,), subscriptions=tuple(settings), since=began - 1)
    )
    assert [sighting.group for sighting in found.sightings] == [group]
    assert [(state.group, state.state) for state in found.groups] == [(group, "settled")]


async def test_a_stream_without_room_for_replays_is_reported_or_changed(
    url: str, transport: Transport
) -> None:
    name = topic()
    group = f"g.{name}"
    names = JetStreamNames("protoflow")
    ordered = settings_of(name, group, ordering=Ordering.PER_KEY)
    topology = Topology(subscriptions=(ordered,))
    await transport.ensure(topology, TopologyMode.CREATE)
    api = transport._api  # type: ignore[attr-defined]
    stream, durable = names.stream(name), names.group_token(group)
    plain = names.subjects(name)
    consumer = {
        key: value
        for key, value in (await api.consumer(stream, durable))["config"].items()
        if key != "filter_subjects"
    }
    await api.create_consumer(stream, {**consumer, "filter_subject": plain[0]}, "update")
    config = (await api.stream(stream))["config"]
    await api.call(f"STREAM.UPDATE.{stream}", {**config, "subjects": plain})
    with pytest.raises(TopologyError) as caught:
        await transport.ensure(topology, TopologyMode.VERIFY)
    text = str(caught.value)
    assert f"add protoflow.=retry.~replay.*.{name} to its subjects" in text
    assert "filter_subjects is" in text
    unordered = replace(ordered, group=f"u.{name}", ordering=Ordering.NONE)
    await transport.ensure(Topology(subscriptions=(unordered,)), TopologyMode.CREATE)
    await transport.ensure(topology, TopologyMode.CREATE)
    await transport.ensure(topology, TopologyMode.VERIFY)
    member, _ = await join(transport, name, group, ordering=Ordering.PER_KEY)
    await _replay(transport, name, group, 1)
    assert (await take(member, 1))[0].shard == 0, "not by the group's own stream"


async def test_a_replay_that_waits_outlives_a_change_of_the_ordering(url: str) -> None:
    name = topic()
    group = f"g.{name}"
    async with opened(url) as transport:
        member, _ = await join(transport, name, group, ordering=Ordering.PER_KEY)
        await member.stop()
        await _replay(transport, name, group, 1)
    async with opened(url) as transport:
        settings = settings_of(name, group)
        member, _ = await join(transport, name, group)
        assert payloads(await take(member, 1)) == [b"1"]
        await transport.ensure(Topology(subscriptions=(settings,)), TopologyMode.VERIFY)


async def test_a_group_that_was_never_ordered_has_its_replays_in_its_own_stream(
    transport: Transport,
) -> None:
    name = topic()
    group = f"g.{name}"
    member, _ = await join(transport, name, group)
    await _replay(transport, name, group, 1)
    (delivery,) = await take(member, 1)
    assert delivery.shard == "retry"
    assert delivery.own_place


async def test_what_a_schedule_of_a_stranger_makes_is_no_replay(transport: Transport) -> None:
    """Whoever may publish to a topic that keeps schedules has the server write for them."""
    name = topic()
    group = f"g.{name}"
    member, _ = await join(transport, name, group, ordering=Ordering.PER_KEY)
    await publish(transport, message(name, b"later", key=b"k", delay=0.01))
    await ack(member, *await take(member, 1))
    names = JetStreamNames("protoflow")
    target = names.subject(names.replay_topic(name, group), b"k")
    forged = {
        "Nats-Schedule": "@at 2020-01-01T00:00:00Z",
        "Nats-Schedule-Target": target,
        "pf_attempt": "9",
        "pf_group": group,
        "ce-id": "forged",
    }
    client = transport._connection.client  # type: ignore[attr-defined]
    await client.publish(names.subject(name), b"forged", headers=forged)
    deliveries = await take(member, 2)
    assert payloads(deliveries) == [b"forged"] * 2, "the schedule, and what it made"
    api = transport._api  # type: ignore[attr-defined]
    made = await api.message(names.stream(name), int(deliveries[1].position))
    assert made["subject"] == target
    assert [delivery.own_place for delivery in deliveries] == [False, False]
