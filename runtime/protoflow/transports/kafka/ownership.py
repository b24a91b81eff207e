"""Settlements that wait for a transaction, and whose transaction it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from aiokafka import AIOKafkaProducer

from protoflow.message import Message, SettleResult
from protoflow.transports.kafka.partition import Partition

#: Called with what came of a settlement.
Ended: TypeAlias = Callable[[SettleResult], None]
#: What is settled: partitions and offsets.
Places: TypeAlias = Sequence[tuple[Partition, int]]


@dataclass(slots=True, eq=False)
class Work:
    """One settlement: what it settles, its outputs, and who waits for it."""

    places: Places
    outputs: Sequence[Message]
    tell: Ended
    told: bool = False

    def ended(self, result: SettleResult) -> None:
        """Tells the result, once."""
        if not self.told:
            self.told = True
            self.tell(result)


@dataclass(slots=True, eq=False)
class Owner:
    """The producer of one partition and the settlements that wait for it.

    Attributes:
        producer: None where it has to be made anew.
        unsure: a transaction ended without an answer: the committed note tells which way.
        alone: held while progress of the partition is written.
    """

    producer: AIOKafkaProducer | None
    unsure: bool = False
    queue: list[Work] = field(default_factory=list)
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


def end(batch: Sequence[Work], result: SettleResult) -> None:
    """Tells all of them the same."""
    for work in batch:
        work.ended(result)
