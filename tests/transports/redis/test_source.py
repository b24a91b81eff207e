"""A stream and a group of other programs as the source of a topic."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from faststream.redis import RedisBroker
from faststream.redis.parser.binary import BinaryMessageFormatV1
from faststream.redis.parser.message import MessageFormat
from protoflow import wire
from protoflow.contract.spec import DeliveryPolicy, RetryPolicy
from protoflow.errors import PublishRefusedError, TopologyError
from protoflow.message import Action, Delivery, Message, Settlement
from protoflow.transport.message_finder import MessageQuery
from protoflow.transport.settings import SubscriptionSettings
from protoflow.transports.redis.foreign_records import decode_foreign
from protoflow.transports.redis.source_subscription import SourceSubscription

from tests.acceptance.contract import pb
from tests.transports import source_walk
from tests.transports.nats.harness import settings_of
from tests.transports.source_walk import Walk


class JSONMessage(MessageFormat):
    """The envelope of earlier versions of FastStream."""

    @classmethod
    async def encode(cls, **message: Any) -> bytes:
        found = await cls.build(**message)
        return json.dumps({"data": found.data.decode(), "headers": found.headers}).encode()

    @classmethod
    def parse(cls, data: bytes) -> tuple[bytes, dict[str, Any]]:
        raise NotImplementedError


class ForeignStream:
    """A stream with a group of its owner, and a group of somebody else."""

    def __init__(self, client: Any) -> None:
        self.name = f"legacy:orders:{uuid.uuid4().hex[:8]}"
        self.group = "Legacy group"
        self.client = client

    async def create(self) -> None:
        await self.client.xgroup_create(self.name, self.group, "0", mkstream=True)
        await self.client.xgroup_create(self.name, "other", "0")

    @property
    def source(self) -> Mapping[str, str]:
        return {"name": self.name, "consumer": self.group}

    async def publish(
        self, payload: bytes, content_type: str | None, headers: Mapping[str, str]
    ) -> None:
        named = {**headers, **({"content-type": content_type} if content_type else {})}
        await self.client.xadd(self.name, {**named, "payload": payload})

    async def topology(self) -> Any:
        """Groups without what consuming changes, and no consumers that are left over."""
        groups = await self.client.xinfo_groups(self.name)
        first = await self.client.xinfo_stream(self.name)
        keys = [key async for key in self.client.scan_iter(f"{self.name}*")]
        consumers = await self.client.xinfo_consumers(self.name, self.group)
        names = [each["name"] for each in groups]
        return names, first["max-deleted-entry-id"], first["entries-added"] > 0, keys, consumers

    async def consumers(self) -> list[str]:
        found = await self.client.xinfo_consumers(self.name, self.group)
        return [each["name"].decode() for each in found]

    async def waiting(self) -> int:
        for each in await self.client.xinfo_groups(self.name):
            if each["name"] == self.group.encode():
                return int(each["lag"] or 0) + int(each["pending"])
        raise AssertionError("the group is gone")


@pytest.fixture
async def place(client: Any) -> AsyncIterator[ForeignStream]:
    place = ForeignStream(client)
    await place.create()
    await place.publish(b'{"number": 0}', None, {})
    yield place
    await client.delete(place.name)


@pytest.fixture
async def walk(url: str, place: ForeignStream) -> Walk:
    (entry,) = await place.client.xreadgroup(place.group, "old", {place.name: ">"})
    await place.client.xack(place.name, place.group, entry[1][0][0])
    await place.client.xgroup_delconsumer(place.name, place.group, "old")
    return Walk(url, place)


async def test_foreign_messages_are_handled(walk: Walk) -> None:
    await source_walk.foreign_messages_are_handled(walk)


async def test_failures_are_retried_and_dead_lettered_beside(walk: Walk) -> None:
    await source_walk.failures_are_retried_and_dead_lettered_beside(walk)


async def test_topology_is_verified_and_publishing_is_refused(walk: Walk) -> None:
    await source_walk.topology_is_verified_and_published_to(walk, publishes=False)
    async with walk.running() as service:
        with pytest.raises(PublishRefusedError, match=f"the stream {walk.place.name} of other"):
            await service.publish_proto("tasks", pb.Task(number=1))


async def test_a_missing_group_is_not_created(walk: Walk, place: ForeignStream) -> None:
    place.group = "missing"
    with pytest.raises(TopologyError, match=f"XGROUP CREATE {place.name} missing"):
        async with walk.running():
            pass


async def test_entries_of_lost_consumers_are_claimed_and_those_of_others_are_not(
    walk: Walk, place: ForeignStream
) -> None:
    for number in (1, 2, 3):
        await place.publish(b'{"number": %d}' % number, None, {})
    for consumer in ("protoflow~crashed", "running elsewhere"):
        await place.client.xreadgroup(place.group, consumer, {place.name: ">"}, count=1)
    await asyncio.sleep(0.6)  # longer than the lease
    async with walk.running(lease=0.5):
        await walk.until(lambda: len(walk.runs) == 2)
        await asyncio.sleep(0.3)
        assert sorted(run.number for run in walk.runs) == [1, 3]
        assert await place.waiting() == 1


def test_entries_of_watermill_are_read() -> None:
    metadata = b"\x82\xa4name\xa9a.B.Order\xd9\x06tenant\xda\x00\x04acme"
    fields = [b"_watermill_message_uuid", b"w-1", b"metadata", metadata, b"payload", b"{}"]
    message, problem = decode_foreign("tasks", "s:1-0", fields)
    assert problem is None
    assert (message.id, message.payload) == ("w-1", b"{}")
    assert message.metadata["tenant"] == "acme"
    assert message.metadata["name"] == "a.B.Order"


async def test_many_held_entries_do_not_hide_those_of_a_lost_process(
    walk: Walk, place: ForeignStream
) -> None:
    async with place.client.pipeline(transaction=False) as pipeline:
        for number in range(1, 2002):
            pipeline.xadd(place.name, {"payload": b'{"number": %d}' % number})
        await pipeline.execute()
    await place.client.xreadgroup(place.group, "running elsewhere", {place.name: ">"}, count=2000)
    await place.client.xreadgroup(place.group, "protoflow~crashed", {place.name: ">"})
    await asyncio.sleep(0.6)  # longer than the lease
    async with walk.running(lease=0.5):
        await walk.until(lambda: walk.runs)
    assert [run.number for run in walk.runs] == [2001]


async def test_consumers_of_lost_processes_are_removed(walk: Walk, place: ForeignStream) -> None:
    for consumer in ("protoflow~crashed", "idle elsewhere"):
        await place.client.xgroup_createconsumer(place.name, place.group, consumer)
    await asyncio.sleep(1.1)  # longer than `max_hold`
    async with walk.running(lease=0.5, max_hold=1.0):
        async with asyncio.timeout(10):
            while len(await place.consumers()) > 2:
                await asyncio.sleep(0.05)
    assert await place.consumers() == ["idle elsewhere"]


async def test_a_message_is_found_in_the_stream_and_among_the_retries(
    walk: Walk, place: ForeignStream
) -> None:
    walk.failing.add(1)
    topic = f"{walk.namespace}..tasks"
    late = DeliveryPolicy(retry=RetryPolicy(max_attempts=3, initial_backoff=60.0, max_backoff=60.0))
    async with walk.running(handlers={"suite.v1.Work.Work": late}) as service:
        await place.publish(b'{"number": 1}', None, {wire.WATERMILL_ID: "w-1"})
        await walk.until(lambda: walk.runs)
        await walk.settled()
        await place.publish(b'{"number": 2}', None, {wire.CAUSATION_ID: "w-1"})
        await walk.until(lambda: len(walk.runs) == 2)
        settings = SubscriptionSettings(
            name="tasks/workers", topic=topic, group=f"{walk.namespace}..workers"
        )
        query = MessageQuery(
            id="w-1", topics=(topic,), subscriptions=(settings,), since=time.time() - 60
        )
        found = await service.transport.find_message(query)  # type: ignore[attr-defined]  # optional
    assert not found.not_searched
    places = [each.topic for each in found.sightings]
    assert places[0] == f"stream {place.name}"
    assert len(places) == 2
    assert [each.message.payload for each in found.sightings] == [b'{"number": 1}'] * 2
    assert len(found.caused) == 1
    (state,) = found.groups
    assert state.group == f"{walk.namespace}..workers"
    assert state.state.startswith("waiting for ")


async def test_messages_of_faststream_are_handled(
    walk: Walk, place: ForeignStream, url: str
) -> None:
    for kind in (BinaryMessageFormatV1, JSONMessage):
        async with RedisBroker(url, message_format=kind) as broker:
            await broker.publish({"number": 6}, stream=place.name, headers={"tenant": "acme"})
    async with walk.running():
        await walk.until(lambda: len(walk.runs) == 2)
        await walk.settled()
    assert [run.number for run in walk.runs] == [6, 6]
    assert {run.context.metadata["tenant"] for run in walk.runs} == {"acme"}


async def test_envelopes_of_faststream_are_opened() -> None:
    sent = await BinaryMessageFormatV1.encode(
        message={"number": 7}, reply_to=None, headers={"tenant": "acme"}, correlation_id="c"
    )
    message, problem = decode_foreign("tasks", "s:1-0", [b"__data__", sent])
    assert (message.payload, problem) == (b'{"number": 7}', None)
    assert message.metadata["tenant"] == "acme"
    assert message.metadata["content-type"] == "application/json"
    for cut in range(12, len(sent) - len(b'{"number": 7}')):
        _, problem = decode_foreign("tasks", "s:1-0", [b"__data__", sent[:cut]])
        assert problem == "a field is not text: ValueError"
    for raw in (
        b'{"number": 7}',
        b'{"data": "x", "number": 7}',
        b'{"data": 7}',
        b"[]",
        b"\x08\x07",
    ):
        message, problem = decode_foreign("tasks", "s:1-0", [b"__data__", raw])
        assert (message.payload, problem) == (raw, None)


def test_an_entry_of_watermill_may_have_no_metadata() -> None:
    fields = [b"_watermill_message_uuid", b"w-1", b"metadata", b"\xc0", b"payload", b"{}"]
    message, problem = decode_foreign("tasks", "s:1-0", fields)
    assert (message.id, message.payload, problem) == ("w-1", b"{}", None)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([b"a", b"1", b"b", b"2"], "no field holds the payload; 'a', 'b' are there"),
        ([b"payload", b"x", b"h", b"\xff"], "a field is not text: UnicodeDecodeError"),
        ([b"payload", b"x", b"_watermill_message_uuid", b"w", b"metadata", b"\x01"],
         "a field is not text: ValueError"),
        ([b"payload", b"x", b"_watermill_message_uuid", b"w", b"metadata", b"\x82\xa1a"],
         "a field is not text: IndexError"),
        ([b"only", b"x"], None),
        ([], "no field holds the payload; none are there"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_problem_of_its_own(
    fields: list[bytes], problem: str | None
) -> None:
    message, found = decode_foreign("tasks", "s:1-0", fields)
    assert message.id in ("s:1-0", "w")
    assert (found is None) if problem is None else (found or "").startswith(problem)


def test_state_that_others_wrote_is_not_copied_to_where_ours_is_believed() -> None:
    foreign = {wire.PF_DUE: "9", "pf_reprocess": "1", "own": "1"}
    message = Message(id="a", topic="t", payload=b"x", metadata=foreign)
    subscription = object.__new__(SourceSubscription)
    subscription.settings = settings_of("t")
    delivery = Delivery(message=message, position="1")
    again = subscription._retry(Settlement(delivery, Action.NACK, failures=2))
    assert {*again.metadata} == {"own", wire.PF_GROUP, wire.PF_ATTEMPT, wire.PF_FIRST_FAILURE}
