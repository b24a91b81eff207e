"""A subscription: one topic read by one group."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection, Sequence

from protoflow import wire
from protoflow.contract import retry_ladder
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.membership import Membership
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.publisher import KafkaPublisher
from protoflow.transports.kafka.settler import KafkaSettler
from protoflow.transports.kafka.start_marks import StartMarks


class KafkaSubscription:
    """See `protoflow.transport.Subscription`, `Isolation` and `Availability`."""

    def __init__(
        self,
        consumption: Consumption,
        membership: Membership,
        context: KafkaContext,
        publisher: KafkaPublisher,
    ) -> None:
        self._consumption = consumption
        self._membership = membership
        self._context = context
        self._settings: SubscriptionSettings = consumption.settings
        self._stopping: asyncio.Task[None] | None = None
        self._orderly: set[Partition] = set()
        self._marks = StartMarks(consumption.settings.name, membership.write)
        transactions = membership.transactions if consumption.is_atomic else None
        self._settler = KafkaSettler(
            consumption.ready, consumption.flow_control, publisher.submit, transactions
        )

    async def start(self) -> None:
        """Joins the group, unless this process has joined, and waits for the positions."""
        try:
            await self._membership.attach(self._consumption)
        except BaseException:
            await self.stop()
            raise

    def set_problem(self, name: str, detail: str | None) -> None:
        """Sets the detail of a problem, or ends it with None."""
        self._consumption.set_problem(name, detail)

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `protoflow.transport.Subscription`."""
        return await self._consumption.ready.get(max_messages, max_bytes)

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """See `protoflow.transport.Subscription`."""
        return self._settler.settle(settlements)

    def defer(self, message: Message, delay: float) -> Message | None:
        """Returns the message for the retry topic whose constant wait fits best."""
        if self._settings.broadcast:
            return None
        due = self._context.settings.clock.now() + delay
        step = retry_ladder.rung(self._context.settings.ladder, delay)
        return dataclasses.replace(
            message,
            topic=self._consumption.topics.retry(step),
            metadata={
                wire.PF_ORIGINAL_TOPIC: self._settings.topic,
                **message.metadata,
                wire.PF_DUE: f"{due:.3f}",
            },
        )

    def pause(self, shards: Collection[str | int]) -> None:
        """See `protoflow.transport.Subscription`."""
        for partition in self._of(shards):
            self._consumption.flow_control.pause(partition)

    def resume(self, shards: Collection[str | int]) -> None:
        """See `protoflow.transport.Subscription`."""
        for partition in self._of(shards):
            self._consumption.flow_control.resume(partition)

    def _of(self, shards: Collection[str | int]) -> list[Partition]:
        return [item for item in self._consumption.partitions.values() if item.shard in shards]

    async def isolate(self, delivery: Delivery | None) -> tuple[Delivery, int] | None:
        """See `protoflow.transport.Isolation`: offsets are permanent, so no message is moved."""
        return None if delivery is None else self._marks.of(delivery)

    async def mark(self, delivery: Delivery) -> None:
        """See `protoflow.transport.Isolation`."""
        await self._marks.add(delivery)

    async def clear(self, delivery: Delivery) -> None:
        """See `protoflow.transport.Isolation`."""
        await self._marks.remove(delivery)

    async def available(self) -> int | None:
        """See `protoflow.transport.Availability`."""
        try:
            async with asyncio.timeout(self._context.options.request_timeout):
                return await self._membership.available(self._consumption)
        except Exception:  # whatever the error is, the number is unknown
            return None

    async def stop(self) -> None:
        """Commits, and leaves the group with the last subscription of this process."""
        if self._stopping is None:
            partitions = self._consumption.partitions.values()
            self._orderly = {item for item in partitions if self._settler.is_orderly(item)}
            self._settler.stop()
            self._consumption.ready.clear()
            self._consumption.ready.close()
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        try:
            await asyncio.shield(self._stopping)
        except asyncio.CancelledError:
            self._stopping.cancel()
            await asyncio.wait([self._stopping])
            await self._membership.abandon(self._consumption)
            raise
        finally:
            self._context.forget(self)

    async def _stop(self) -> None:
        await self._membership.detach(self._consumption, self._orderly)
