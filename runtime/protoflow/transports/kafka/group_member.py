"""The shared state of the parts of one group member."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition

from protoflow.transports.kafka.consumption import Consumption
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.reader_wakeup import ReaderWakeup


@dataclass(eq=False, repr=False, kw_only=True)
class GroupMember:
    """A consumer, and the subscriptions and partitions for which it reads.

    Attributes:
        group: the group; empty for a broadcast.
        context: the context of the transport.
        consumer: the consumer of aiokafka.
        topics: the consumed topics.
        wakeup: wakes the reader.
        consumptions: the subscriptions.
        by_topic: the subscription of each topic.
        partitions: the partitions that are read.
    """

    group: str
    context: KafkaContext
    consumer: AIOKafkaConsumer
    topics: list[str]
    wakeup: ReaderWakeup = field(default_factory=ReaderWakeup)
    consumptions: list[Consumption] = field(default_factory=list)
    by_topic: dict[str, Consumption] = field(default_factory=dict)
    partitions: dict[TopicPartition, Partition] = field(default_factory=dict)

    def consumption_of(self, topic: str) -> Consumption | None:
        """Returns the open subscription of a topic."""
        consumption = self.by_topic.get(topic)
        return consumption if consumption is not None and consumption.open else None

    def report(self, name: str, detail: str | None) -> None:
        """Sets the detail of a problem of all subscriptions, or ends it with None."""
        for consumption in self.consumptions:
            consumption.set_problem(name, detail)
