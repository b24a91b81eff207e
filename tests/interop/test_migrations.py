"""The gradual paths of docs/migrating.md: old and new consumers in one group, then only new ones.

FastStream's side is FastStream. Go's side is aiokafka: it writes and reads exactly the wire form
of Watermill and of the Go runtime (docs/wire.md), in a consumer group with the assignor of sarama.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import aiormq
import pytest
from aiokafka import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from google.protobuf import json_format
from protoflow import Service, wire

from tests.acceptance.contract import pb, pf
from tests.brokers import url_or_skip
from tests.transports.kafka.test_source import ForeignTopic
from tests.transports.rabbitmq.test_source import ForeignQueue
from tests.transports.source_walk import PATIENCE, Walk

pytest.importorskip("faststream", reason="package: faststream")
from faststream import AckPolicy
from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange, RabbitQueue

pytestmark = pytest.mark.timeout(120)
#: Messages of each stage.
STAGE = 40


@dataclass
class Tally:
    """What was sent, and what each side has handled."""

    walk: Walk
    old: list[int] = field(default_factory=list)
    sent: int = 0

    def numbers(self) -> range:
        """Returns the numbers of the next stage."""
        self.sent += STAGE
        return range(self.sent - STAGE, self.sent)

    @property
    def new(self) -> list[int]:
        return [run.number for run in self.walk.runs]

    async def balanced(self) -> None:
        """Waits until nothing is missing; then nothing may be repeated."""
        async with asyncio.timeout(PATIENCE):
            while len({*self.old, *self.new}) < self.sent:
                await asyncio.sleep(0.02)
        assert sorted(self.old + self.new) == [*range(self.sent)]

    def marked(self) -> tuple[int, int]:
        """Returns how many each side has handled so far."""
        return len(self.old), len(self.walk.runs)


async def publish_new(service: Service, number: int) -> None:
    """Publishes as programs with the generated producers do."""
    await pf.WorkProducer(service).work(pb.Task(number=number, key=str(number)))


async def test_from_faststream_on_a_rabbitmq_queue() -> None:
    url = url_or_skip("rabbitmq")
    connection = await aiormq.connect(url)
    place = ForeignQueue(await connection.channel(), "classic")
    await place.declare()
    walk = Walk(url, place, settings={"max_in_flight": 4, "encoding": "json"})
    tally = Tally(walk)
    old = RabbitBroker(url, default_channel=Channel(prefetch_count=4), graceful_timeout=10)
    exchange = RabbitExchange(place.exchange, type=ExchangeType.FANOUT, declare=False)

    @old.subscriber(RabbitQueue(place.name, declare=False), ack_policy=AckPolicy.ACK)
    async def bill(order: dict[str, Any]) -> None:
        await asyncio.sleep(0.005)
        tally.old.append(order.get("number", 0))

    async def publish_old(numbers: Iterable[int]) -> None:
        for number in numbers:
            await old.publish({"number": number}, exchange=exchange)

    before = await place.topology()
    try:
        await old.start()
        # 1. Only FastStream.
        await publish_old(tally.numbers())
        await tally.balanced()
        assert tally.marked()[1] == 0
        # 2. Protoflow consumes the same queue; nothing else changes.
        async with walk.running() as service:
            marked = tally.marked()
            await publish_old(tally.numbers())
            await tally.balanced()
            # 3. The producers move. They reach consumers of both kinds.
            for number in tally.numbers():
                await publish_new(service, number)
            await tally.balanced()
            assert all(now > then for now, then in zip(tally.marked(), marked, strict=True))
            # 4. FastStream's consumers stop.
            (handled, _), numbers = tally.marked(), tally.numbers()
            await publish_old(numbers[: STAGE // 2])
            await old.stop()
            assert await place.topology() == before
            for number in numbers[STAGE // 2 :]:
                await publish_new(service, number)
            await tally.balanced()
            assert handled <= len(tally.old) < tally.sent
            # 5. The topic becomes our own: new processes have no source, old ones drain the queue.
            (handled, _), numbers = tally.marked(), tally.numbers()
            for number in numbers[: STAGE // 2]:
                await publish_new(service, number)
            async with walk.running(topics={}) as owner:
                for number in numbers[STAGE // 2 :]:
                    await publish_new(owner, number)
                await tally.balanced()
        assert tally.marked() == (handled, tally.sent - handled)
        assert await place.waiting() == 0
    finally:
        await old.stop()
        await place.delete()
        await connection.close()


class GoService(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is not typed
    """A consumer and producer of the Go runtime on Watermill, as they look on the wire."""

    def __init__(self, place: ForeignTopic, tally: Tally) -> None:
        self._place = place
        self._tally = tally
        self._busy = asyncio.Lock()
        self._consumer = place.consumer(
            group_id=place.group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy=(RangePartitionAssignor,),  # sarama's default
        )

    async def start(self) -> None:
        self._consumer.subscribe([self._place.name], listener=self)
        await self._consumer.start()
        self._task = asyncio.create_task(self._consume())

    async def stop(self) -> None:
        async with self._busy:
            self._task.cancel()
        await self._consumer.stop()

    async def publish(self, number: int) -> None:
        """Every field in protojson, as the Go runtime writes it; Watermill's uuid; the Go type."""
        payload = json_format.MessageToJson(
            pb.Task(number=number), always_print_fields_with_no_presence=True
        )
        headers = {
            wire.WATERMILL_ID: str(uuid.uuid4()),
            wire.GO_SCHEMA: "*suitev1.Task",
            wire.CORRELATION_ID: f"c-{number}",
        }
        await self._place.publish(payload.encode(), None, headers)

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        """Watermill ends the running handler and commits before its session ends."""
        async with self._busy:
            pass

    def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        """Nothing."""

    @property
    def partitions(self) -> int:
        return len(self._consumer.assignment())

    async def _consume(self) -> None:
        while True:
            found = await self._consumer.getmany(timeout_ms=50, max_records=1)
            async with self._busy:
                for tp, (record,) in found.items():
                    if tp not in self._consumer.assignment():
                        continue  # it has moved, and another member gets it
                    headers = dict(record.headers)
                    assert headers[wire.WATERMILL_ID]
                    assert headers[wire.GO_SCHEMA] == b"*suitev1.Task"
                    self._tally.old.append(json.loads(record.value).get("number", 0))
                    await self._consumer.commit({tp: record.offset + 1})


async def test_from_go_protoflow_on_a_kafka_group() -> None:
    url = url_or_skip("kafka")
    place = ForeignTopic(url, partitions=4)
    await place.open()
    walk = Walk(
        url,
        place,
        settings={
            "profile": "watermill",
            "encoding": "json",
            "type_names": {"*suitev1.Task": "suite.v1.Task"},
        },
    )
    tally = Tally(walk)
    old = GoService(place, tally)
    before = await place.topology()
    try:
        await old.start()
        # 1. Only Go.
        for number in tally.numbers():
            await old.publish(number)
        await tally.balanced()
        assert tally.marked()[1] == 0
        # 2. Protoflow joins the group; messages keep coming meanwhile.
        numbers = tally.numbers()
        for number in numbers[: STAGE // 2]:
            await old.publish(number)
        async with walk.running() as service:
            for number in numbers[STAGE // 2 :]:
                await old.publish(number)
            async with asyncio.timeout(PATIENCE):
                while old.partitions != 2:
                    await asyncio.sleep(0.02)
            await tally.balanced()
            marked = tally.marked()
            # 3. The producers move, with Watermill's headers and JSON.
            for number in tally.numbers():
                await publish_new(service, number)
            await tally.balanced()
            assert all(now > then for now, then in zip(tally.marked(), marked, strict=True))
            assert {run.context.correlation_id for run in walk.runs} >= {
                f"c-{run.number}" for run in walk.runs if run.number < 2 * STAGE
            }
            # 4. Go leaves; its partitions move.
            numbers = tally.numbers()
            for number in numbers[: STAGE // 2]:
                await publish_new(service, number)
            await old.stop()
            for number in numbers[STAGE // 2 :]:
                await publish_new(service, number)
            await tally.balanced()
            assert await place.topology() == before
    finally:
        await place.close()
