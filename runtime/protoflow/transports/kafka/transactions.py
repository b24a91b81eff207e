"""Transactions: outputs and the offsets of their inputs become visible together.

Each partition of a group has its own transactional id. A new owner takes this id when it gets the
partition, which fences the previous owner: Kafka would otherwise accept its offset commits in
transactions. The commit metadata contain messages that finished out of order, so handlers may run
concurrently.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from protoflow.message import Message, SettleResult
from protoflow.transports.kafka.group_member import GroupMember
from protoflow.transports.kafka.groups import committed
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.producers import abandon_producer, producer_arguments
from protoflow.transports.kafka.record_encoder import EncodedRecord, RecordEncoder
from protoflow.transports.kafka.transaction_queue import (
    Offsets,
    OnResult,
    PartitionProducer,
    PendingSettlement,
    encode_outputs,
    end,
)

_log = logging.getLogger("protoflow.transports.kafka")


class Transactions:
    """The transactions of a member: one at a time in each partition, with all its settlements."""

    def __init__(
        self,
        member: GroupMember,
        encoder: RecordEncoder,
        *,
        is_member: Callable[[], Awaitable[bool]],
        fenced: Callable[[Partition], None],
    ) -> None:
        self._group = member.group
        self._context = member.context
        self._encoder = encoder
        self._is_member = is_member
        self._fenced = fenced
        self._owners: dict[TopicPartition, PartitionProducer] = {}

    async def take(self, tps: Collection[TopicPartition]) -> None:
        """Fences earlier owners and ends their open transactions. Raises KafkaError."""
        await self.leave(tps)
        for tp in sorted(tps):
            owner = PartitionProducer(await self._started(tp))
            owner.idle.set()
            self._owners[tp] = owner

    async def quiet(self) -> None:
        """Waits until no transaction is in progress."""
        for owner in list(self._owners.values()):
            await owner.idle.wait()

    async def leave(self, tps: Collection[TopicPartition] | None = None) -> None:
        """Gives partitions up; None means all."""
        wanted = list(self._owners if tps is None else tps)
        owners = [self._owners.pop(tp) for tp in wanted if tp in self._owners]
        tasks = [owner.task for owner in owners if owner.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for owner in owners:
            end(owner.queue, SettleResult.UNKNOWN)
            owner.idle.set()
        producers = [owner.producer for owner in owners if owner.producer is not None]
        await asyncio.gather(*(self._stop(producer) for producer in producers))

    def add(self, places: Offsets, outputs: Sequence[Message], ended: OnResult) -> None:
        """Settles with the next transaction of the first place's partition."""
        partition, _ = places[0]
        owner = self._owners.get(partition.tp)
        if owner is None or not all(place.live for place, _ in places):
            ended(SettleResult.LOST)
            return
        if not outputs and all(place.is_done(offset) for place, offset in places):
            ended(SettleResult.DONE)
            return
        owner.queue.append(PendingSettlement(places, outputs, ended))
        owner.arrived.set()
        owner.idle.clear()
        if owner.task is None:
            owner.task = asyncio.get_running_loop().create_task(self._work(owner, partition))

    async def write(self, partition: Partition) -> None:
        """Commits offset and metadata of a partition in a separate transaction. Raises
        KafkaError."""
        owner = self._owners.get(partition.tp)
        if owner is None:
            raise ProducerFenced("the partition has moved away")
        async with owner.alone:
            try:
                producer = await self._usable(owner, partition)
                await self._transact(producer, {partition: set()}, ())
            # even if cancelled: the producer is in the middle of a transaction
            except BaseException:
                await self._give_up(owner)
                raise

    async def _started(self, tp: TopicPartition) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **producer_arguments(self._context),
            # No name contains a slash, so two partitions never share an id.
            transactional_id=f"{self._group}/{tp.topic}/{tp.partition}",
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
        try:
            async with asyncio.timeout(2):
                await producer.stop()
        except Exception:
            await abandon_producer(producer)
        except asyncio.CancelledError:
            await abandon_producer(producer)
            raise

    async def _give_up(self, owner: PartitionProducer) -> None:
        """Leaves an open transaction to the next producer, which aborts it."""
        owner.unsure = True
        producer, owner.producer = owner.producer, None
        if producer is not None:
            await self._stop(producer)

    async def _work(self, owner: PartitionProducer, partition: Partition) -> None:
        while True:
            await owner.arrived.wait()
            owner.arrived.clear()
            batch, owner.queue = owner.queue, []
            try:
                await self._settle(owner, partition, batch)
            except asyncio.CancelledError:
                end(batch, SettleResult.UNKNOWN)
                raise
            except Exception:  # whatever the error is, no caller may wait for ever
                _log.exception("a transaction failed")
                end(batch, SettleResult.UNKNOWN)
            if not owner.queue:
                owner.idle.set()

    async def _settle(
        self, owner: PartitionProducer, partition: Partition, batch: list[PendingSettlement]
    ) -> None:
        batch, records = await encode_outputs(batch, self._encoder)
        if not batch:
            return
        owners = self._involved(batch, owner)
        if owners is None:
            end(batch, SettleResult.LOST)
            return
        async with contextlib.AsyncExitStack() as alone:
            for involved in owners:
                await alone.enter_async_context(involved.alone)
            await self._settle_alone(owner, partition, batch, records)

    def _involved(
        self, batch: Sequence[PendingSettlement], owner: PartitionProducer
    ) -> list[PartitionProducer] | None:
        """Returns the owners of all partitions in a fixed order; None if one has moved away."""
        tps = sorted({place.tp for work in batch for place, _ in work.places})
        owners = [self._owners.get(tp) for tp in tps]
        found = [item for item in owners if item is not None]
        return found if len(found) == len(owners) and owner in found else None

    async def _settle_alone(
        self,
        owner: PartitionProducer,
        partition: Partition,
        batch: list[PendingSettlement],
        records: list[EncodedRecord],
    ) -> None:
        try:
            producer = await self._usable(owner, partition)
            batch, records = await self._not_done(batch, records)
            if not batch:
                return
            done: dict[Partition, set[int]] = {partition: set()}
            for work in batch:
                for place, offset in work.places:
                    done.setdefault(place, set()).add(offset)
            if not all(place.live for place in done):
                end(batch, SettleResult.LOST)
                return
            await self._transact(producer, done, records)
        except ProducerFenced:
            self._lose(partition, batch)
        except Exception as error:  # after any error, the producer cannot be used again
            _log.warning("a transaction failed", extra={"error": repr(error)})
            await self._give_up(owner)
            await self._find_out(owner, partition, batch)
        else:
            for work in batch:
                for place, offset in work.places:
                    place.finish(offset)
            end(batch, SettleResult.DONE)

    def _lose(self, partition: Partition, batch: list[PendingSettlement]) -> None:
        _log.warning("a partition has a new owner", extra={"partition": str(partition.tp)})
        partition.live = False
        end(batch, SettleResult.LOST)
        self._fenced(partition)

    async def _find_out(
        self, owner: PartitionProducer, partition: Partition, batch: list[PendingSettlement]
    ) -> None:
        """Determines the result of a transaction without an answer, if it is known now."""
        try:
            await self._usable(owner, partition)
        except ProducerFenced:
            self._lose(partition, batch)
            return
        except Exception as error:  # the result is queried again before the next transaction
            _log.info("the result of a transaction is unknown", extra={"error": repr(error)})
        for work in batch:
            held = all(place.live for place, _ in work.places)
            done = all(place.is_done(offset) for place, offset in work.places)
            unknown = SettleResult.UNKNOWN if held else SettleResult.LOST
            work.ended(SettleResult.DONE if held and done else unknown)

    async def _not_done(
        self, batch: list[PendingSettlement], records: list[EncodedRecord]
    ) -> tuple[list[PendingSettlement], list[EncodedRecord]]:
        """Returns the remaining settlements: an earlier transaction may have been committed."""
        rest = []
        for work in batch:
            done = {place.is_done(offset) for place, offset in work.places}
            if True in done:  # part of it: one settlement was committed separately before
                work.ended(SettleResult.LOST if False in done else SettleResult.DONE)
            else:
                rest.append(work)
        return (
            (rest, records)
            if len(rest) == len(batch)
            else await encode_outputs(rest, self._encoder)
        )

    async def _usable(self, owner: PartitionProducer, partition: Partition) -> AIOKafkaProducer:
        """Returns the producer of a partition. Raises ProducerFenced.

        A new producer ends the open transaction of the previous one; the committed metadata then
        show its result. ProducerFenced means that another process has the partition, whose
        transactional id must not be taken from it.
        """
        if owner.producer is None:
            if not await self._is_member():
                raise ProducerFenced("the group has removed this member")
            owner.producer = await self._started(partition.tp)
        if owner.unsure:
            places = await committed(self._context.admin, self._group, [partition.tp])
            offset, metadata = places.get(partition.tp, (0, None))
            partition.committed(offset, metadata.finished if metadata else ())
            owner.unsure = False
        return owner.producer

    async def _transact(
        self,
        producer: AIOKafkaProducer,
        done: dict[Partition, set[int]],
        records: Sequence[EncodedRecord],
    ) -> None:
        async with asyncio.timeout(self._context.options.transaction_timeout):
            await producer.begin_transaction()
            sent = [
                await producer.send(record.topic, record.value, record.key, headers=record.headers)
                for record in records
            ]
            await asyncio.gather(*sent)
            places = {}
            for partition, offsets in done.items():
                offset, metadata = partition.outlook(offsets, self._context.writer)
                places[partition.tp] = OffsetAndMetadata(offset, metadata.encode(offset))
            await producer.send_offsets_to_transaction(places, self._group)
            await producer.commit_transaction()
