"""Transactions: outputs and the progress that they belong to become visible together.

Each partition of a group has a transactional id of its own, taken when it is assigned. That
fences the owner before, whose offset commit within a transaction Kafka would not otherwise
refuse; the note carries what is finished out of turn, so handlers may run concurrently.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from protoflow.errors import PublishRefusedError
from protoflow.message import Message, SettleResult
from protoflow.transport import SubscriptionSettings
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.groups import Groups
from protoflow.transports.kafka.outgoing import Outbound, Outgoing, physical_topic
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.producers import producer_arguments

_log = logging.getLogger("protoflow.transports.kafka")

#: Called with what came of a settlement.
Ended: TypeAlias = Callable[[SettleResult], None]


@dataclass(slots=True, eq=False)
class _Work:
    """One settlement: its offset, its outputs, and who waits for it."""

    offset: int
    outputs: Sequence[Message]
    tell: Ended
    told: bool = False

    def ended(self, result: SettleResult) -> None:
        """Tells the result, once."""
        if not self.told:
            self.told = True
            self.tell(result)


class _Owner:
    """The producer of one partition and the settlements that wait for it."""

    def __init__(self, producer: AIOKafkaProducer) -> None:
        self.producer: AIOKafkaProducer | None = producer
        self.queue: list[_Work] = []
        self.arrived = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.task: asyncio.Task[None] | None = None


class Transactions:
    """The transactions of one subscription: one at a time in each partition, each with
    everything that was settled there meanwhile."""

    def __init__(
        self,
        settings: SubscriptionSettings,
        context: Context,
        groups: Groups,
        outbound: Outbound,
    ) -> None:
        self._settings = settings
        self._context = context
        self._groups = groups
        self._outbound = outbound
        self._owners: dict[TopicPartition, _Owner] = {}

    async def take(self, tps: Collection[TopicPartition]) -> None:
        """Fences the owners before and ends what they left open. Raises KafkaError."""
        await self.leave()
        for tp in sorted(tps):
            self._owners[tp] = _Owner(await self._started(tp))

    async def quiet(self) -> None:
        """Waits until nothing is on its way."""
        for owner in list(self._owners.values()):
            await owner.idle.wait()

    async def leave(self) -> None:
        """Gives the partitions up."""
        owners, self._owners = list(self._owners.values()), {}
        for owner in owners:
            if owner.task is not None:
                owner.task.cancel()
                await asyncio.gather(owner.task, return_exceptions=True)
            _end(owner.queue, SettleResult.UNKNOWN)
            owner.idle.set()
            if owner.producer is not None:
                await self._stop(owner.producer)

    def add(
        self, partition: Partition, offset: int, outputs: Sequence[Message], ended: Ended
    ) -> None:
        """Settles with the partition's next transaction."""
        owner = self._owners.get(partition.tp)
        if owner is None or partition.is_done(offset):
            ended(SettleResult.LOST)
            return
        owner.queue.append(_Work(offset, outputs, ended))
        owner.arrived.set()
        owner.idle.clear()
        if owner.task is None:
            owner.task = asyncio.get_running_loop().create_task(self._work(owner, partition))

    async def _started(self, tp: TopicPartition) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **producer_arguments(self._context),
            transactional_id=f"{self._settings.group}.{tp.topic}.{tp.partition}",
            transaction_timeout_ms=int(self._context.options.transaction_timeout * 1000),
        )
        try:
            async with asyncio.timeout(self._context.options.request_timeout):
                await producer.start()
        except BaseException:
            await self._stop(producer)
            raise
        return producer

    async def _stop(self, producer: AIOKafkaProducer) -> None:
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(5):
                await producer.stop()

    async def _work(self, owner: _Owner, partition: Partition) -> None:
        while True:
            await owner.arrived.wait()
            owner.arrived.clear()
            batch, owner.queue = owner.queue, []
            try:
                await self._settle(owner, partition, batch)
            except asyncio.CancelledError:
                _end(batch, SettleResult.UNKNOWN)
                raise
            except Exception:  # whatever it was, nobody waits for ever
                _log.exception("a transaction failed")
                _end(batch, SettleResult.UNKNOWN)
            if not owner.queue:
                owner.idle.set()

    async def _settle(self, owner: _Owner, partition: Partition, batch: list[_Work]) -> None:
        batch, records = await self._encode(batch)
        if not batch:
            return
        try:
            if owner.producer is None:
                owner.producer = await self._started(partition.tp)
            await self._transact(owner.producer, partition, batch, records)
        except ProducerFenced:
            _log.info("a partition has a new owner", extra={"partition": str(partition.tp)})
            partition.live = False
            _end(batch, SettleResult.LOST)
        except (KafkaError, TimeoutError) as error:
            _log.warning("a transaction failed", extra={"error": repr(error)})
            await self._recover(owner, partition, batch)
        else:
            for work in batch:
                partition.finish(work.offset)
            _end(batch, SettleResult.DONE)

    async def _encode(self, batch: list[_Work]) -> tuple[list[_Work], list[Outgoing]]:
        """What may be sent; a settlement whose output is refused is told so and left out."""
        accepted: list[_Work] = []
        records: list[Outgoing] = []
        for work in batch:
            try:
                encoded = [await self._outgoing(message) for message in work.outputs]
            except PublishRefusedError:
                work.ended(SettleResult.REFUSED)
            except (KafkaError, TimeoutError):
                work.ended(SettleResult.UNKNOWN)
            else:
                accepted.append(work)
                records += encoded
        return accepted, records

    async def _outgoing(self, message: Message) -> Outgoing:
        topic = physical_topic(message.topic)
        await self._outbound.learn(topic)
        return self._outbound.encode(message, topic)

    async def _transact(
        self,
        producer: AIOKafkaProducer,
        partition: Partition,
        batch: Sequence[_Work],
        records: Sequence[Outgoing],
    ) -> None:
        async with asyncio.timeout(self._context.options.transaction_timeout):
            await producer.begin_transaction()
            sent = [
                await producer.send(record.topic, record.value, record.key, headers=record.headers)
                for record in records
            ]
            await asyncio.gather(*sent)
            offset, note = partition.outlook({work.offset for work in batch}, self._context.writer)
            place = OffsetAndMetadata(offset, note.encode(offset))
            await producer.send_offsets_to_transaction({partition.tp: place}, self._settings.group)
            await producer.commit_transaction()

    async def _recover(self, owner: _Owner, partition: Partition, batch: list[_Work]) -> None:
        """A new producer ends the open transaction, one way or the other; the committed note
        then tells which."""
        producer, owner.producer = owner.producer, None
        if producer is not None:
            await self._stop(producer)
        owner.producer = await self._started(partition.tp)
        places = await self._groups.committed(self._settings.group, [partition.tp])
        offset, note = places.get(partition.tp, (0, None))
        for work in batch:
            if work.offset < offset or (note and work.offset in note.finished):
                partition.finish(work.offset)
                work.ended(SettleResult.DONE)
            else:
                work.ended(SettleResult.UNKNOWN)


def _end(batch: Sequence[_Work], result: SettleResult) -> None:
    for work in batch:
        work.ended(result)
