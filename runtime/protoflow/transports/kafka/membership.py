"""The single member of a group in a process, for all its topics."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.kafka.assignment import Assignment
from protoflow.transports.kafka.commits import Commits
from protoflow.transports.kafka.consumers import abandon, group_consumer, stop_consumer
from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.fetch_wait import shorten_fetch_wait
from protoflow.transports.kafka.group_lease import GroupLease
from protoflow.transports.kafka.group_member import GroupMember
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.record_encoder import RecordEncoder
from protoflow.transports.kafka.record_reader import RecordReader
from protoflow.transports.kafka.start_positions import StartPositions
from protoflow.transports.kafka.topic_watch import TopicWatch
from protoflow.transports.kafka.topics import SubscriptionTopics
from protoflow.transports.kafka.transactions import Transactions
from protoflow.transports.kafka.unreadable_records import install

#: Seconds for each step of leaving, so that a silent broker does not delay the end.
_LEAVING = 3.0
#: Seconds within which an announced topic must be subscribed.
_ANNOUNCED = 60.0


class Membership:
    """A consumer of a group, with its tasks.

    Attributes:
        member: the state that it shares with its parts.
        transactions: the transactions of atomic subscriptions.
        commits: the commits of other subscriptions.
        left: whether it reads for no subscription any more.
    """

    def __init__(
        self,
        planned: Sequence[SubscriptionSettings],
        topics: Sequence[str],
        context: KafkaContext,
        encoder: RecordEncoder,
    ) -> None:
        settings, options = planned[0], context.options
        self._mains: dict[str, str] = {}
        for item in planned:
            self._know(SubscriptionTopics(item, context.settings.ladder, context.existing))
        self._consumer = consumer = group_consumer(planned, context, self._mains)
        self.member = member = GroupMember(
            group="" if settings.broadcast else context.group_id(settings),
            context=context,
            consumer=consumer,
            topics=[*topics],
        )
        self.left = False
        self.commits = Commits(
            consumer, context.writer, options.request_timeout, options.commit_interval
        )
        self._lease = GroupLease(consumer, context.group_id(settings), options.session_timeout)
        self.transactions = Transactions(
            member, encoder, is_member=self._lease.is_member, fenced=self._fenced
        )
        self._positions = StartPositions(member)
        self._assignment = (
            None
            if settings.broadcast
            else Assignment(member, self._positions, self.commits, self.transactions)
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._restarting: asyncio.Task[None] | None = None

    def _know(self, topics: SubscriptionTopics) -> None:
        """Records that retry topics are assigned together with their main topic."""
        self._mains |= dict.fromkeys(topics.rungs, topics.main)

    def serves(self, topic: str) -> bool:
        """Whether a subscription to this topic is attached."""
        return topic in self.member.by_topic

    async def attach(self, consumption: Consumption) -> None:
        """Starts reading for a subscription; returns when its positions are known."""
        member, topics = self.member, consumption.topics
        member.consumptions.append(consumption)
        member.by_topic |= dict.fromkeys(topics.all, consumption)
        self._know(topics)
        if not self._tasks:
            await self._start()
        elif not {*topics.all} <= {*member.topics}:
            member.topics = [*dict.fromkeys((*member.topics, *topics.all))]
            self._subscribe()
        if self._assignment is None:
            for tp in self._consumer.assignment():
                await self._consumer.position(tp)
            return
        self._assignment.prepare_again()
        if not await self._assignment.until_prepared(self._tasks[0]):
            await consumption.ready.get(1, 1)  # raises the error that ended the reader

    def _subscribe(self) -> None:
        if self._assignment is not None:
            self._assignment.prepared.clear()
            self._consumer.subscribe(self.member.topics, listener=self._assignment)
        else:
            self._consumer.subscribe(self.member.topics)

    async def _start(self) -> None:
        self._subscribe()
        await self._consumer.start()
        shorten_fetch_wait(self._consumer)
        member, assignment = self.member, self._assignment
        reader = RecordReader(member, assignment, install(self._consumer))
        self._start_task(reader.run())
        if assignment is not None:
            self._start_task(self.commits.run(member.partitions))
            self._start_task(self._lease.watch(assignment, member.report))
            watch = TopicWatch(member, assignment, reader, self._positions, self._forget)
            self._start_task(watch.run())
            self._start_task(self._forget_unused())

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Reports the end of a task, which subscriptions need."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            for consumption in self.member.consumptions:
                consumption.fail(transport_error(error, "consuming", consumption.settings.name))

    async def _forget_unused(self) -> None:
        """Releases announced topics to which this process has not subscribed."""
        await asyncio.sleep(_ANNOUNCED)
        for topic in [name for name in self.member.topics if not self.serves(name)]:
            self._forget(topic)

    def _forget(self, topic: str) -> None:
        """Stops consuming a topic."""
        if topic in self.member.topics:
            self.member.topics.remove(topic)
            self.member.by_topic.pop(topic, None)
            self._subscribe()

    def _fenced(self, _: Partition) -> None:
        """Handles that another process took a transactional id of a partition.

        The partition may still belong to this process.
        """
        if self._restarting is None or self._restarting.done():
            self._restarting = asyncio.get_running_loop().create_task(self._restart())
            self._tasks.append(self._restarting)

    async def _restart(self) -> None:
        """Takes the assignment again if this process still owns it; otherwise the group revokes
        it."""
        assignment = self._assignment
        if assignment is None or not await self._lease.is_member_still():
            return
        assigned = assignment.assigned
        self.member.report("fenced", "another process took a transactional id of this one")
        await assignment.give_up(drains=False)
        if assignment.assigned is assigned:
            assignment.prepare_again()
        self.member.report("fenced", None)

    async def write(self, partition: Partition) -> None:
        """Commits offset and metadata of a partition. Raises KafkaError or TimeoutError."""
        if partition.atomic:
            await self.transactions.write(partition)
        else:
            await self.commits.commit([partition])

    async def available(self, consumption: Consumption) -> int | None:
        """Returns the number of unread messages in the partitions of a subscription. Raises
        KafkaError."""
        if self._assignment is None or not self._assignment.prepared.is_set():
            return None
        now = [tp for tp, item in consumption.partitions.items() if item.live and not item.hold]
        ends = await self._consumer.end_offsets(now) if now else {}
        return consumption.waiting(ends)

    async def detach(self, consumption: Consumption, orderly: Collection[Partition]) -> None:
        """Commits for one subscription and stops reading for it; the last one leaves the group.

        Args:
            consumption: the partitions of the subscription.
            orderly: partitions without held messages. Their last commit says that this process
                ended normally; of other partitions, a held message may have killed it.
        """
        member = self.member
        if consumption not in member.consumptions:
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
            self._assignment.drop(partitions)
        await self.transactions.leave([item.tp for item in partitions if item.atomic])
        member.consumptions.remove(consumption)
        member.by_topic = {
            name: item for name, item in member.by_topic.items() if item is not consumption
        }
        member.wakeup.wake()
        if not member.consumptions:
            await self._end_tasks()
            try:
                async with asyncio.timeout(_LEAVING):
                    await stop_consumer(self._consumer)
            except Exception:  # whatever the error is, the member leaves
                await abandon(self._consumer)
            await self.transactions.leave()

    async def abandon(self, consumption: Consumption) -> None:
        """Ends immediately, without requests to the broker."""
        consumption.open = False
        if consumption in self.member.consumptions:
            self.member.consumptions.remove(consumption)
        if not self.member.consumptions:
            await self._end_tasks()
            await abandon(self._consumer)
            await self.transactions.leave()

    async def _end_tasks(self) -> None:
        self.left = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
