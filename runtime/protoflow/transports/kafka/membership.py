"""The one member of a group that a process has, for all its topics."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from aiokafka import TopicPartition

from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.kafka.assignment import Assignment
from protoflow.transports.kafka.commits import Commits
from protoflow.transports.kafka.consumers import abandon, group_consumer, stop_consumer
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.fetch_wait import shorten_fetch_wait
from protoflow.transports.kafka.group_lease import GroupLease
from protoflow.transports.kafka.groups import Groups
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup
from protoflow.transports.kafka.record_encoder import RecordEncoder
from protoflow.transports.kafka.record_reader import RecordReader
from protoflow.transports.kafka.start_positions import StartPositions
from protoflow.transports.kafka.topic_watch import TopicWatch
from protoflow.transports.kafka.topics import SubscriptionTopics
from protoflow.transports.kafka.transactions import Transactions
from protoflow.transports.kafka.unreadable_records import Unreadable, install

_log = logging.getLogger("protoflow.transports.kafka")
#: Seconds that each step of leaving may take: a broker that does not answer is not waited for.
_LEAVING = 3.0
#: Seconds within which whoever announced a topic subscribes to it.
_ANNOUNCED = 60.0


class Membership:
    """A consumer of a group, and the tasks around it.

    Attributes:
        group: the group; empty for a broadcast.
        consumptions: the subscriptions that it reads for.
        topics: what it consumes.
        transactions: of the subscriptions that are atomic.
        commits: of the others.
        wakeup: wakes the reader.
    """

    def __init__(
        self,
        planned: Sequence[SubscriptionSettings],
        topics: Sequence[str],
        context: KafkaContext,
        encoder: RecordEncoder,
    ) -> None:
        settings = planned[0]
        self.group = "" if settings.broadcast else settings.group
        self.topics = list(topics)
        self.consumptions: list[Consumption] = []
        self.wakeup = ReaderWakeup()
        self.left = False
        self._context = context
        self._mains: dict[str, str] = {}
        for item in planned:
            self._know(SubscriptionTopics(item, context.settings.ladder, context.existing))
        self._consumer = consumer = group_consumer(planned, context, self._mains)
        self.commits = Commits(consumer, context.writer, context.options.request_timeout)
        self._tasks: list[asyncio.Task[None]] = []
        self._by_topic: dict[str, Consumption] = {}
        self._partitions: dict[TopicPartition, Partition] = {}
        self._restarting: asyncio.Task[None] | None = None
        groups = Groups(context.admin)
        self.lease = GroupLease(consumer, settings.group, context.options.session_timeout)
        self.transactions = Transactions(
            settings.group,
            context,
            groups,
            encoder,
            is_member=self.lease.is_member,
            fenced=self._fenced,
        )
        positions = StartPositions(settings.group, consumer, groups, context)
        self._positions = positions
        self._assignment = None if settings.broadcast else self._make_assignment()
        if self._assignment is not None:
            self._partitions = self._assignment.partitions

    def _make_assignment(self) -> Assignment:
        return Assignment(
            self.group,
            self._consumer,
            self._positions,
            self.commits,
            self._consumption_of,
            self.transactions,
            self.wakeup,
        )

    def _know(self, topics: SubscriptionTopics) -> None:
        """Retry topics are dealt out together with the topic that they belong to."""
        self._mains |= dict.fromkeys(topics.rungs, topics.main)

    def reads(self, topics: Sequence[str]) -> bool:
        """Whether these topics are consumed."""
        return set(topics) <= set(self.topics)

    def serves(self, topic: str) -> bool:
        """Whether a subscription to this topic is attached."""
        return topic in self._by_topic

    def _consumption_of(self, topic: str) -> Consumption | None:
        consumption = self._by_topic.get(topic)
        return consumption if consumption is not None and consumption.open else None

    async def attach(self, consumption: Consumption) -> None:
        """Reads for one subscription more; returns when its positions are known."""
        self.consumptions.append(consumption)
        self._by_topic |= dict.fromkeys(consumption.topics.all, consumption)
        self._know(consumption.topics)
        if not self._tasks:
            await self._start()
        elif not self.reads(consumption.topics.all):
            self.topics = list(dict.fromkeys((*self.topics, *consumption.topics.all)))
            self._subscribe()
        if self._assignment is None:
            for tp in self._consumer.assignment():
                await self._consumer.position(tp)
            return
        self.prepare_again()
        if not await self._assignment.until_prepared(self._tasks[0]):
            await consumption.ready.get(1, 1)  # raises what ended the reader

    def _subscribe(self) -> None:
        if self._assignment is not None:
            self._assignment.prepared.clear()
            self._consumer.subscribe(self.topics, listener=self._assignment)
        else:
            self._consumer.subscribe(self.topics)

    async def _start(self) -> None:
        self._subscribe()
        await self._consumer.start()
        shorten_fetch_wait(self._consumer)
        self._start_task(self._make_reader(install(self._consumer)).run())
        if self._assignment is not None:
            interval = self._context.options.commit_interval
            self._start_task(self.commits.run(self._partitions, interval))
            self._start_task(self.lease.watch(self._assignment, self._report))
            watch = TopicWatch(self, self._positions, self._context)
            self._start_task(watch.run())
            self._start_task(self._forget_unused())

    async def _forget_unused(self) -> None:
        """Leaves topics to others that were announced and that nobody here subscribes to."""
        await asyncio.sleep(_ANNOUNCED)
        for topic in [name for name in self.topics if name not in self._by_topic]:
            self.forget(topic)

    def _make_reader(self, unreadable: Unreadable) -> RecordReader:
        self.reader = RecordReader(
            self._consumer,
            self._assignment,
            self._partitions,
            self.consumptions,
            self._consumption_of,
            self.wakeup,
            unreadable,
            on_lost_position=self._context.settings.on_lost_position,
            health_changed=lambda detail: self._report("reading", detail),
        )
        return self.reader

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Nothing that a subscription needs ends in silence."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            for consumption in self.consumptions:
                consumption.fail(transport_error(error, "consuming", consumption.settings.name))

    def _report(self, name: str, detail: str | None) -> None:
        for consumption in self.consumptions:
            consumption.set_problem(name, detail)

    def _fenced(self, partition: Partition) -> None:
        """A transactional id was taken by somebody else, though the partition may be ours."""
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.get_running_loop().create_task(self._restart())
            self._tasks.append(self._restarting)

    async def _restart(self) -> None:
        """Takes the assignment anew, if it is still ours; else the group revokes it."""
        assignment = self._assignment
        if assignment is None or not await self.lease.is_member_still():
            return
        assigned = assignment.assigned
        self._report("fenced", "another process took a transactional id of this one")
        await assignment.give_up(drains=False)
        if assignment.assigned is assigned:
            self.prepare_again()
        self._report("fenced", None)

    def drop(self, partitions: Collection[Partition]) -> None:
        """They are read no longer, until `prepare_again`."""
        if self._assignment is not None and partitions:
            self._assignment.drop(partitions)

    def prepare_again(self) -> None:
        """Prepares what of the assignment is not read."""
        if self._assignment is not None and self._assignment.assigned is not None:
            self._assignment.prepare_again()

    def forget(self, topic: str) -> None:
        """A topic is consumed no longer."""
        if topic in self.topics:
            self.topics.remove(topic)
            self._by_topic.pop(topic, None)
            self._subscribe()

    async def write(self, partition: Partition) -> None:
        """Commits offset and metadata of a partition. Raises KafkaError or TimeoutError."""
        if partition.atomic:
            await self.transactions.write(partition)
        else:
            await self.commits.commit([partition])

    async def available(self, consumption: Consumption) -> int | None:
        """How many messages lie in the partitions of a subscription and were not read. Raises
        KafkaError."""
        if self._assignment is None or not self._assignment.prepared.is_set():
            return None
        now = [tp for tp, item in consumption.partitions.items() if item.live and not item.hold]
        ends = await self._consumer.end_offsets(now) if now else {}
        return consumption.waiting(ends)

    async def detach(self, consumption: Consumption, orderly: Collection[Partition]) -> None:
        """Commits for one subscription and reads for it no longer; the last one leaves.

        Args:
            consumption: the subscription's.
            orderly: partitions of which nothing is held any more: they end clean. Where
                something is, its handler may be what ends this process.
        """
        if consumption not in self.consumptions:
            return
        consumption.open = False
        partitions = list(consumption.partitions.values())
        if consumption.is_atomic:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LEAVING):
                    await self.transactions.quiet()
        if self._assignment is not None:
            clean = [item for item in partitions if item in orderly]
            rest = [item for item in partitions if item not in orderly]
            for some, is_clean in ((clean, True), (rest, False)):
                await self.commits.finally_commit(some, clean=is_clean, seconds=_LEAVING)
        if self._assignment is not None:
            self._assignment.drop(partitions)
        await self.transactions.leave([item.tp for item in partitions if item.atomic])
        self.consumptions.remove(consumption)
        self._by_topic = {
            name: item for name, item in self._by_topic.items() if item is not consumption
        }
        self.wakeup.wake()
        if not self.consumptions:
            await self._leave()

    async def _end_tasks(self) -> None:
        self.left = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _leave(self) -> None:
        await self._end_tasks()
        try:
            async with asyncio.timeout(_LEAVING):
                await stop_consumer(self._consumer)
        except Exception:  # whatever it was, it leaves
            await abandon(self._consumer)
        await self.transactions.leave()

    async def abandon(self, consumption: Consumption) -> None:
        """Ends at once, without asking the broker for anything."""
        consumption.open = False
        if consumption in self.consumptions:
            self.consumptions.remove(consumption)
        if not self.consumptions:
            await self._end_tasks()
            await abandon(self._consumer)
            await self.transactions.leave()
