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
from protoflow.message import Action, Delivery, Message, Settlement, SettleResult
from protoflow.transport import SubscriptionListener, SubscriptionSettings
from protoflow.transports.kafka.assignment import Assignment
from protoflow.transports.kafka.careful import Careful
from protoflow.transports.kafka.commits import COMMIT_ERRORS, Commits
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.groups import Groups
from protoflow.transports.kafka.inbox import Inbox
from protoflow.transports.kafka.intake import Intake
from protoflow.transports.kafka.note import Note
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.reader import Reader
from protoflow.transports.kafka.topics import SubscriptionTopics

_log = logging.getLogger("protoflow.transports.kafka")
_ACK = Action.ACK
_DONE = SettleResult.DONE


class KafkaSubscription:
    """A member of a group, or a broadcast consumer without one."""

    def __init__(
        self,
        settings: SubscriptionSettings,
        listener: SubscriptionListener,
        context: Context,
        consumer: AIOKafkaConsumer,
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
        self._intake = Intake(
            consumer, self._inbox, context.settings.clock, context.options.window, self._notice
        )
        self._assignment = None if settings.broadcast else self._make_assignment()
        if self._assignment is not None:
            self._partitions = self._assignment.partitions
        self._careful = Careful(
            self._partitions, self._commits, self._inbox, self._intake.flow, self._intake.is_due
        )

    def _make_assignment(self) -> Assignment:
        return Assignment(
            self._settings,
            self._listener,
            self._consumer,
            Groups(self._context.admin, self._topics.main),
            self._commits,
            self._make_partition,
            self._inbox.clear,
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
            reader = self._start_task(self._read())
            if self._assignment is not None:
                self._start_task(self._careful.run())
                self._start_task(
                    self._commits.run(self._partitions, self._context.options.commit_interval)
                )
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
        self._tasks.append(task)
        return task

    async def _read(self) -> None:
        """Runs the reader; whatever ends it is told to everybody who waits."""
        reader = Reader(
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
        try:
            await reader.run()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            failure = transport_error(error, "consuming", self._settings.name)
            self._reading_changed(str(failure))
            self._inbox.close(failure)

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
        """Counts what is finished; commits follow by interval, and before partitions leave."""
        results = []
        touched: set[Partition] = set()
        again: list[Delivery] = []
        for settlement in settlements:
            delivery = settlement.delivery
            partition: Partition = delivery.receipt
            if not partition.live:
                results.append(SettleResult.LOST)
                continue
            if settlement.action is not _ACK:
                again += self._given_back(settlement, partition)
            elif not partition.finish(delivery.position):  # type: ignore[arg-type]
                results.append(SettleResult.LOST)
                continue
            if partition.resting or partition.careful_until:
                touched.add(partition)
            results.append(_DONE)
        if again:
            self._inbox.put_back(again)
        for partition in touched:
            self._careful.notice()
            self._intake.throttle(partition)
        future: asyncio.Future[Sequence[SettleResult]]
        future = asyncio.get_running_loop().create_future()
        future.set_result(results)
        return future

    def _given_back(self, settlement: Settlement, partition: Partition) -> Sequence[Delivery]:
        """What is handed out again from memory: Kafka gives back only what is not committed."""
        delivery = settlement.delivery
        if partition.leaving or self._stopping is not None or self._careful.given_back(delivery):
            return ()
        if settlement.action is Action.RELEASE:
            return (delivery,)
        delivery = dataclasses.replace(
            delivery, failures=settlement.failures, first_failure=settlement.first_failure
        )
        if settlement.delay <= 0:
            return (delivery,)
        loop = asyncio.get_running_loop()
        loop.call_later(settlement.delay, self._wait_is_over, delivery, partition)
        return ()

    def _wait_is_over(self, delivery: Delivery, partition: Partition) -> None:
        if partition.live and not partition.leaving and self._stopping is None:
            self._inbox.put_back([delivery])

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
        self._inbox.clear()
        self._inbox.close()
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
                await self._consumer.stop()
        self._context.forget(self)
