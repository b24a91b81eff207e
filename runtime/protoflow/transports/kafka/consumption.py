"""The state shared by a subscription and the group member that reads for it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiokafka import TopicPartition

from protoflow.transport.interface import SubscriptionListener, SubscriptionSettings
from protoflow.transport.kit.health_reporter import HealthReporter
from protoflow.transports.kafka.commit_metadata import CommitMetadata
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.fair_share import FairShare
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.partition_flow import PartitionFlow
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup
from protoflow.transports.kafka.ready_deliveries import ReadyDeliveries
from protoflow.transports.kafka.topics import SubscriptionTopics

#: Seconds without a confirmed commit after which readiness is red.
_PATIENCE = 10.0


class Consumption:
    """The partitions of a subscription, and its deliveries that are not handed out yet.

    Attributes:
        settings: the subscription.
        topics: its topics.
        listener: is notified when shards move away.
        ready: deliveries that were read and not handed out yet.
        flow_control: decides when deliveries become ready.
        partitions: its partitions in this process.
        open: whether the group member reads for it.
        found_missing: missing topics that were reported.
    """

    def __init__(
        self,
        settings: SubscriptionSettings,
        topics: SubscriptionTopics,
        listener: SubscriptionListener,
        context: KafkaContext,
        wakeup: ReaderWakeup,
    ) -> None:
        self.settings = settings
        self.topics = topics
        self.listener = listener
        self.partitions: dict[TopicPartition, Partition] = {}
        self.ready = ReadyDeliveries(FairShare(settings, self.partitions), wakeup)
        self.flow_control = PartitionFlow(
            self.ready,
            context.settings.clock,
            context.options.window_for(settings.concurrency),
            wakeup,
        )
        self.open = True
        self._writer = context.writer
        self._health = HealthReporter(listener)
        self._late_since: float | None = None

    @property
    def is_atomic(self) -> bool:
        """Whether progress is committed by transactions."""
        return self.settings.atomic and not self.settings.broadcast

    def make(
        self, tp: TopicPartition, offset: int, metadata: CommitMetadata | None = None
    ) -> Partition:
        """Returns a partition that is read from an offset on."""
        return Partition(
            tp,
            self.topics.shard(tp.topic, tp.partition),
            offset,
            metadata,
            hold=self.topics.hold(tp.topic),
            own=tp.topic in self.topics.rungs,
            atomic=self.is_atomic,
            writer=self._writer,
            consumption=self,
        )

    def waiting(self, ends: Mapping[TopicPartition, int]) -> int:
        """Returns the number of messages that could be handed out now."""
        unread = sum(
            max(0, end - self.partitions[tp].position)
            for tp, end in ends.items()
            if tp in self.partitions
        )
        partitions = self.partitions.values()
        paused = sum(len(item.backlog) for item in partitions if not item.hold)
        return unread + paused + sum(len(item.ready) for item in partitions)

    def commit_is_late(self) -> None:
        """Limits deliveries to `max_in_flight` more messages, because they may be handled again
        after a fault."""
        self.ready.limit(self.settings.max_in_flight)
        now = asyncio.get_running_loop().time()
        if self._late_since is None:
            self._late_since = now
        elif (seconds := now - self._late_since) >= _PATIENCE:
            self.set_problem("commit", f"no commit was confirmed for {seconds:.0f} s")

    def commit_is_confirmed(self) -> None:
        """Ends the limit of `commit_is_late` if no commit of a partition is late."""
        if self._late_since is None or any(item.late for item in self.partitions.values()):
            return
        self._late_since = None
        self.ready.unlimit()
        self.set_problem("commit", None)

    def set_problem(self, name: str, detail: str | None) -> None:
        """Sets the detail of a problem, or ends it with None."""
        self._health.set(name, detail)

    def fail(self, error: Exception) -> None:
        """Ends the subscription permanently."""
        self._health.fail(str(error))
        self.open = False
        self.ready.close(error)
