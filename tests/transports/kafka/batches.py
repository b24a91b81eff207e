"""Batches of records as a broker answers with them, and aiokafka's results over them."""

from __future__ import annotations

from aiokafka import TopicPartition
from aiokafka.consumer.fetcher import FetchResult, PartitionRecords
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords
from protoflow.transports.kafka.unreadable_records import Unreadable, _Fetched

from tests.transports.kafka.evil_name import Name

TP = TopicPartition("t", 0)


def batch_of(base: int, records: list[tuple[bytes | None, bool]]) -> bytes:
    """A batch with so many records, some of them with a name that is no text."""
    builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1 << 20)
    for offset, (value, evil) in enumerate(records):
        headers = [("a", b"1"), (Name("b") if evil else "b", b"2")]
        builder.append(offset, 1000 + offset, b"k", value, headers)
    raw = builder.build()
    raw[:8] = base.to_bytes(8, "big")
    return bytes(raw)


class Assignment:
    """As much of aiokafka's as results look at."""

    active = True

    def __init__(self, position: int) -> None:
        self.position = position
        self.paused = False

    def state_value(self, _tp: TopicPartition) -> Assignment:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


def fetched(raw: bytes, position: int) -> tuple[FetchResult, Unreadable, Assignment]:
    assignment, unreadable = Assignment(position), Unreadable()
    records = PartitionRecords(TP, MemoryRecords(raw), [], position, None, None, False, 0)
    results = _Fetched({TP: raw}, unreadable)
    results[TP] = FetchResult(TP, assignment=assignment, partition_records=records, backoff=0)
    return results[TP], unreadable, assignment
