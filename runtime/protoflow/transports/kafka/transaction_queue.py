"""Settlements that wait for the transaction of a partition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from aiokafka import AIOKafkaProducer

from protoflow.message import Message, SettleResult
from protoflow.transports.kafka.partition import Partition

#: Called with what came of a settlement.
OnResult: TypeAlias = Callable[[SettleResult], None]
#: What is settled: partitions and offsets.
Offsets: TypeAlias = Sequence[tuple[Partition, int]]


@dataclass(slots=True, eq=False)
class PendingSettlement:
    """A settlement with its outputs, and the callback for its result."""

    places: Offsets
    outputs: Sequence[Message]
    report: OnResult
    is_reported: bool = False

    def ended(self, result: SettleResult) -> None:
        """Reports the result, once."""
        if not self.is_reported:
            self.is_reported = True
            self.report(result)


@dataclass(slots=True, eq=False)
class PartitionProducer:
    """The producer of one partition and the settlements that wait for it.

    Attributes:
        producer: None where it has to be made anew.
        unsure: a transaction ended without an answer: the committed metadata say which way.
        alone: held while progress of the partition is written.
    """

    producer: AIOKafkaProducer | None
    unsure: bool = False
    queue: list[PendingSettlement] = field(default_factory=list)
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


def end(batch: Sequence[PendingSettlement], result: SettleResult) -> None:
    """Reports one result for all of them."""
    for work in batch:
        work.ended(result)
