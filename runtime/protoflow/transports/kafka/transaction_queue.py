"""Settlements that wait for a partition's transaction, with their outputs as records."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from aiokafka import AIOKafkaProducer

from protoflow.errors import PublishError, PublishRefusedError
from protoflow.message import Message, SettleResult
from protoflow.transports.kafka.errors import malformed
from protoflow.transports.kafka.partition import Partition
from protoflow.transports.kafka.record_encoder import (
    EncodedRecord,
    RecordEncoder,
    checked,
)

_log = logging.getLogger("protoflow.transports.kafka")

#: Called with the result of a settlement.
OnResult: TypeAlias = Callable[[SettleResult], None]
#: The settled partitions and offsets.
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
    """The producer of one partition, and the settlements that wait for it.

    Attributes:
        producer: None if it must be created again.
        unsure: whether a transaction ended without an answer; the committed metadata then show the
            result.
        alone: the lock that is held while progress of the partition is written.
    """

    producer: AIOKafkaProducer | None
    unsure: bool = False
    queue: list[PendingSettlement] = field(default_factory=list)
    alone: asyncio.Lock = field(default_factory=asyncio.Lock)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


def end(batch: Sequence[PendingSettlement], result: SettleResult) -> None:
    """Reports one result for all settlements."""
    for work in batch:
        work.ended(result)


async def encode_outputs(
    batch: Sequence[PendingSettlement], encoder: RecordEncoder
) -> tuple[list[PendingSettlement], list[EncodedRecord]]:
    """Encodes outputs; leaves out settlements with a refused output, which get that result."""
    accepted: list[PendingSettlement] = []
    records: list[EncodedRecord] = []
    for work in batch:
        try:
            encoded = [await _encode(message, encoder) for message in work.outputs]
        except PublishRefusedError:
            work.ended(SettleResult.REFUSED)
        except Exception as error:
            _log.info("an output must wait", extra={"error": repr(error)})
            work.ended(SettleResult.UNKNOWN)
        else:
            accepted.append(work)
            records += encoded
    return accepted, records


async def _encode(message: Message, encoder: RecordEncoder) -> EncodedRecord:
    topic = encoder.physical(message.topic)
    await encoder.learn(topic)
    try:
        return checked(encoder.encode(message, topic))
    except PublishError:
        raise
    # the value is neither bytes nor text, and must not affect the others
    except Exception as error:
        raise malformed(error, topic) from error
