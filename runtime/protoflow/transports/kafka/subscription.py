"""One topic read by one group: a consumer of its own."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from protoflow import ladder, wire
from protoflow.errors import TransportError
from protoflow.message import Delivery, Message, Settlement, SettleResult
from protoflow.transport import SubscriptionListener, SubscriptionSettings
from protoflow.transports.kafka.assignment import Assignment
from protoflow.transports.kafka.careful import Careful
from protoflow.transports.kafka.commits import COMMIT_ERRORS, Commits
from protoflow.transports.kafka.consumers import stop_consumer
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.fetching import hasten
from protoflow.transports.kafka.groups import Groups
from protoflow.transports.kafka.inbox import Inbox
from protoflow.transports.kafka.intake import Intake
from protoflow.transports.kafka.note import Note
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.publisher import Publisher
from protoflow.transports.kafka.reader import Reader
from protoflow.transports.kafka.settling import Settling
from protoflow.transports.kafka.topics import SubscriptionTopics
from protoflow.transports.kafka.transactions import Transactions

_log = logging.getLogger("protoflow.transports.kafka")


class KafkaSubscription:
    """A member of a group, or a broadcast consumer without one."""

    def __init__(
        self,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        context: Context,
        consumer: AIOKafkaConsumer,
        publisher: Publisher,
    ) -> None:
        self._settings = settings
        self._listener = listener
        self._context = context
        self._consumer = consumer
        self._topics = SubscriptionTopics(settings, context.settings.ladder)
        self._problems: dict[str, str] = {}
        self._stopping: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._inbox = Inbox()
        self._commits = Commits(consumer, context.writer, context.options.request_timeout)
        self._partitions: dict[TopicPartition, Partition] = {}
        window = context.options.window_for(settings.concurrency)
        self._intake = Intake(self._inbox, context.settings.clock, window, self._notice)
        self._transactions: Transactions | None = None
        groups = Groups(context.admin, self._topics.main)
        if settings.atomic and not settings.broadcast:
            self._transactions = Transactions(settings, context, groups, publisher.outbound)
        self._assignment = None if settings.broadcast else self._make_assignment(groups)
        if self._assignment is not None:
            self._partitions = self._assignment.partitions
        self._careful = Careful(
            self._partitions, self._commits, self._inbox, self._intake.flow, self._intake.is_due
        )
        self._settling = Settling(
            self._inbox, self._intake, self._careful, publisher.submit, self._transactions
        )

    def _make_assignment(self, groups: Groups) -> Assignment:
        return Assignment(
            self._settings,
            self._listener,
            self._consumer,
            groups,
            self._commits,
            self._make_partition,
            self._inbox.clear,
            self._transactions,
        )

    def _make_partition(
        self, tp: TopicPartition, offset: int, note: Note | None = None
    ) -> Partition:
        hold = self._topics.hold(tp.topic)
        return Partition(
            tp,
            self._topics.shard(tp.topic, tp.partition),
            offset,
            note,
            hold=hold,
            writer=self._context.writer,
        )

    def _notice(self) -> None:
        self._careful.notice()

    async def start(self) -> None:
        """Joins the group and waits until positions are known."""
        topics = list(self._topics.all)
        if self._assignment is not None:
            self._consumer.subscribe(topics, listener=self._assignment)
        else:
            self._consumer.subscribe(topics)
        try:
            await self._consumer.start()
            hasten(self._consumer)
            reader = self._start_task(self._make_reader().run())
            if self._assignment is not None:
                self._start_task(self._careful.run())
                if self._transactions is None:  # else each transaction commits
                    interval = self._context.options.commit_interval
                    self._start_task(self._commits.run(self._partitions, interval))
                await self._until_prepared(self._assignment, reader)
            else:
                for tp in self._consumer.assignment():
                    await self._consumer.position(tp)
        except BaseException:
            await self.stop()
            raise

    async def _until_prepared(self, assignment: Assignment, reader: asyncio.Task[None]) -> None:
        waiting = asyncio.ensure_future(assignment.prepared.wait())
        try:
            await asyncio.wait((waiting, reader), return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
        if not assignment.prepared.is_set():
            await self._inbox.get(1, 1)  # raises what ended the reader

    def _start_task(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        task.add_done_callback(self._task_ended)
        self._tasks.append(task)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Nothing that a subscription needs ends in silence."""
        error = None if task.cancelled() else task.exception()
        if error is not None:
            failure = transport_error(error, "consuming", self._settings.name)
            self._reading_changed(str(failure))
            self._inbox.close(failure)

    def _make_reader(self) -> Reader:
        return Reader(
            self._settings,
            self._consumer,
            self._assignment,
            self._partitions,
            self._inbox,
            self._intake,
            make=self._make_partition,
            on_lost_position=self._context.settings.on_lost_position,
            health_changed=self._reading_changed,
        )

    def set_problem(self, name: str, detail: str | None) -> None:
        """Something went wrong, or is right again; the runtime hears of the first problem and
        of the end of the last one."""
        was_healthy = not self._problems
        if detail is None:
            self._problems.pop(name, None)
        else:
            self._problems[name] = detail
        if was_healthy != (not self._problems):
            self._listener.health_changed(not self._problems, detail or "")

    def _reading_changed(self, detail: str | None) -> None:
        self.set_problem("reading", detail)

    async def receive(self, max_messages: int, max_bytes: int) -> Sequence[Delivery]:
        """See `protoflow.transport.Subscription`."""
        return await self._inbox.get(max_messages, max_bytes)

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Sequence[SettleResult]]:
        """See `protoflow.transport.Subscription`."""
        return self._settling.settle(settlements)

    def defer(self, message: Message, delay: float) -> Message | None:
        """The message for the retry topic whose constant wait fits best."""
        if self._settings.broadcast:
            return None
        due = self._context.settings.clock.now() + delay
        step = ladder.rung(self._context.settings.ladder, delay)
        return dataclasses.replace(
            message,
            topic=self._topics.retry(step),
            metadata={
                wire.PF_ORIGINAL_TOPIC: self._settings.topic,
                **message.metadata,
                wire.PF_DUE: f"{due:.3f}",
            },
        )

    def pause(self, shards: Collection[str | int]) -> None:
        """See `protoflow.transport.Subscription`."""
        for partition in self._of(shards):
            self._intake.pause(partition)

    def resume(self, shards: Collection[str | int]) -> None:
        """See `protoflow.transport.Subscription`."""
        for partition in self._of(shards):
            self._intake.resume(partition)

    def _of(self, shards: Collection[str | int]) -> list[Partition]:
        return [item for item in self._partitions.values() if item.shard in shards]

    async def stop(self) -> None:
        """Commits, leaves the group, disconnects."""
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        self._settling.stop()
        self._inbox.clear()
        self._inbox.close()
        if self._transactions is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._context.options.transaction_timeout):
                    await self._transactions.quiet()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        partitions = list(self._partitions.values())
        if self._assignment is not None:
            try:
                await self._commits.commit(partitions, clean=True)
            except COMMIT_ERRORS as error:
                _log.warning(
                    "stopped without the last commit; messages may come again",
                    extra={"subscription": self._settings.name, "error": repr(error)},
                )
        for partition in partitions:
            partition.live = False
        self._partitions.clear()
        with contextlib.suppress(TransportError, TimeoutError):
            async with asyncio.timeout(self._context.options.request_timeout):
                await stop_consumer(self._consumer)
        if self._transactions is not None:
            await self._transactions.leave()
        self._context.forget(self)
