"""The subscription of a simulated Kafka: the transport's own parts, simulated partitions."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from protoflow import wire
from protoflow.contract import retry_ladder
from protoflow.errors import TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.testing.simulation.link import Link
from protoflow.testing.simulation.log_broker import LogBroker
from protoflow.testing.simulation.log_state import GroupState, Record, Shard
from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transports.kafka.fair_share import FairShare
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.partition_flow import PartitionFlow
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup
from protoflow.transports.kafka.ready_deliveries import ReadyDeliveries
from protoflow.transports.kafka.settler import KafkaSettler, Submit
from protoflow.transports.kafka.start_marks import StartMarks
from protoflow.transports.memory.broker import size_of

#: Seconds between commits, between two reads of empty logs, and after a failure.
_COMMIT, _LOOK, _PAUSE = 1.0, 2.0, 0.5
_WINDOW = 1000
_LADDER = (5.0, 30.0, 120.0, 600.0, 3600.0)


class LogSubscription:
    """A member of a group; implements `Isolation` and `Availability`, too.

    Attributes:
        generation: see `log_broker.LogMember`.
    """

    def __init__(
        self, broker: LogBroker, link: Link, state: GroupState, settings: SubscriptionSettings,
        listener: SubscriptionListener, submit: Submit, clock: Any,
    ) -> None:  # fmt: skip
        self.name = str(link.process)
        self.settings = settings
        self.generation = 0
        self._broker = broker
        self._link = link
        self._state = state
        self._listener = listener
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._clock = clock
        self._partitions: dict[Any, Partition] = {}
        self._mine = 0  # the generation in which the current positions are valid
        wakeup = ReaderWakeup()
        self._ready = ReadyDeliveries(FairShare(settings, self._partitions), wakeup)
        self._flow = PartitionFlow(self._ready, clock, _WINDOW, wakeup)
        self._settler = KafkaSettler(self._ready, self._flow, submit, None)
        self._marks = StartMarks(settings.name, self._write)
        self._woken = asyncio.Event()
        self._stopped = False
        self._tasks = [self._loop.create_task(self._read_all())]
        self._tasks.append(self._loop.create_task(self._commit_all()))

    # Called by the broker.

    @property
    def dead(self) -> bool:
        """See `log_broker.LogMember`."""
        return not self._link.process.alive

    @property
    def reachable(self) -> bool:
        """See `log_broker.LogMember`."""
        return not self.dead and self._link.process.resumes <= self._loop.time()

    def rebalancing(self) -> None:
        """See `log_broker.LogMember`."""
        self.wake()

    def wake(self) -> None:
        """See `log_broker.LogMember`."""
        if not self.dead:
            self._loop.call_later(0.003, self._woken.set, context=self._context)

    # Called by the engine.

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `Subscription.receive`."""
        return await self._ready.get(max_messages, max_bytes)

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """See `Subscription.settle`."""
        return self._settler.settle(settlements)

    def defer(self, message: Message, delay: float) -> Message | None:
        """See `Subscription.defer`."""
        due = self._clock.now() + delay
        topic = self._broker.rung(self._state, retry_ladder.rung(_LADDER, delay))
        metadata = {**message.metadata, wire.PF_DUE: f"{due:.3f}"}
        return replace(message, topic=topic, metadata=metadata)

    def pause(self, shards: Collection[Shard]) -> None:
        """See `Subscription.pause`."""
        for shard in shards:
            self._flow.pause(self._partitions[shard])

    def resume(self, shards: Collection[Shard]) -> None:
        """See `Subscription.resume`."""
        for shard in shards:
            self._flow.resume(self._partitions[shard])

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `Isolation`."""
        return None if delivery is None else self._marks.of(delivery)

    async def mark(self, delivery: Delivery) -> None:
        """See `Isolation`."""
        await self._marks.add(delivery)

    async def clear(self, delivery: Delivery) -> None:
        """See `Isolation`."""
        await self._marks.remove(delivery)

    async def available(self) -> int | None:
        """See `Availability`."""
        return sum(
            len(self._state.logs[shard]) - item.position for shard, item in self._partitions.items()
        )

    async def stop(self) -> None:
        """See `Subscription.stop`."""
        if self._stopped:
            return
        self._stopped = True
        self._settler.stop()
        self._ready.clear()
        self._ready.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(TransportError):
            await self._commit(clean=True)
        self._end()
        with contextlib.suppress(TransportError):
            await self._link.call("leave", lambda _: self._broker.leave(self._state, self))

    # Reading.

    async def _read_all(self) -> None:
        while True:
            try:
                self._woken.clear()
                if self._mine != self._state.generation:
                    await self._join()
                elif not await self._read():
                    alarm = self._loop.call_later(_LOOK, self._woken.set)
                    await self._woken.wait()
                    alarm.cancel()
            except TransportError:
                await asyncio.sleep(_PAUSE)

    async def _join(self) -> None:
        """Gives up its partitions, joins the group, and takes the assigned partitions."""
        await self._revoke()
        await self._link.call("join", lambda _: self._broker.join(self._state, self))
        generation, committed = await self._link.call(
            "assignment", lambda _: self._broker.assignment(self._state, self)
        )
        self._mine = generation
        for shard, (offset, metadata) in committed.items():
            own = isinstance(shard, str)
            name = str(shard).removeprefix("retry.").partition("/")[0]
            hold = float(name) if own else 0.0
            tp: Any = shard
            partition = Partition(tp, shard, offset, metadata, hold=hold, own=own, writer=self.name)
            if partition.is_suspicious:
                partition.begin_isolation(self.settings.max_in_flight)
            self._partitions[shard] = partition
        await self._commit()

    async def _revoke(self) -> None:
        if not self._partitions:
            return
        for partition in self._partitions.values():
            partition.leaving = True
            self._ready.withdraw(partition)
            partition.backlog.clear()
        drain = self.settings.rebalance_drain if self.generation else 0.0
        await self._listener.shards_revoked([*self._partitions], drain)
        with contextlib.suppress(TransportError):
            await self._commit(clean=True)
        self._end()

    def _end(self) -> None:
        for partition in self._partitions.values():
            partition.live = False
        self._partitions.clear()
        self._mine = 0

    async def _read(self) -> bool:
        positions = {
            shard: item.position for shard, item in self._partitions.items() if not item.resting
        }
        generation = self._mine
        found: Mapping[Shard, list[tuple[int, Record]]] = await self._link.call(
            "fetch",
            lambda _: self._broker.read(self._state, self, generation, positions),
        )
        for shard, records in found.items():
            partition = self._partitions[shard]
            read = [
                self._delivery(partition, offset, record)
                for offset, record in records
                if partition.admit(offset)
            ]
            self._flow.accept(partition, read)
        return bool(found)

    def _delivery(self, partition: Partition, offset: int, record: Record) -> Delivery:
        message = record.message
        if partition.own:
            message = replace(message, topic=self.settings.topic)
        return Delivery(
            message=message,
            shard=partition.shard,
            position=offset,
            time=record.time,
            size=size_of(message),
            receipt=partition,
            own_place=partition.own,
            suspect=partition.is_suspect(offset),
        )

    # Committing.

    async def _commit_all(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT)
            with contextlib.suppress(TransportError):
                await self._commit(only_dirty=True)

    async def _write(self, partition: Partition) -> None:
        await self._commit()

    async def _commit(self, *, clean: bool = False, only_dirty: bool = False) -> None:
        partitions = [item for item in self._partitions.values() if item.dirty or not only_dirty]
        offsets: dict[Shard, tuple[int, Any]] = {}
        for partition in partitions:
            orderly = clean and self._settler.is_orderly(partition)
            metadata = partition.metadata(self.name, clean=orderly)
            offsets[partition.shard] = (
                partition.watermark,
                replace(metadata, finished=frozenset(metadata.finished)),
            )
            partition.dirty = False
        if not offsets:
            return
        generation = self._mine
        try:
            await self._link.call(
                "settle", lambda _: self._broker.commit(self._state, self, generation, offsets)
            )
        except BaseException:
            for partition in partitions:
                partition.dirty = True
            self._ready.limit(self.settings.max_in_flight)
            raise
        self._ready.unlimit()
