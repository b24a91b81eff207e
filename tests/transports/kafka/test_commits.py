"""Commits whose answer is unknown, without a broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from protoflow.transports.kafka.commits import COMMIT_ERRORS, Commits
from protoflow.transports.kafka.partition import Partition

TP = TopicPartition("orders", 0)


class Consumer:
    """A consumer that commits, or fails before or after."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.committed: list[int] = []

    async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
        self.committed.append(offsets[TP].offset)
        if self.failures:
            raise self.failures.pop()


def partition() -> Partition:
    made = Partition(TP, 0, 7)
    made.admit(7)
    made.finish(7)
    return made


@pytest.mark.parametrize(
    "failure", [ConnectionResetError("gone"), RuntimeError("whatever"), KafkaConnectionError()]
)
async def test_whatever_fails_is_an_error_that_callers_expect(failure: Exception) -> None:
    item = partition()
    with pytest.raises(COMMIT_ERRORS):
        await Commits(Consumer(failure), "w", 5.0).commit([item])
    assert item.dirty, "it is committed anew"


@pytest.mark.parametrize("failure", [ConnectionResetError("gone"), CommitFailedError()])
async def test_a_commit_that_fails_is_repeated(failure: Exception) -> None:
    consumer = Consumer(failure)
    item = partition()
    task = asyncio.create_task(Commits(consumer, "w", 5.0).run({TP: item}, 0.001))
    try:
        async with asyncio.timeout(10):
            while item.dirty and not task.done():
                await asyncio.sleep(0.001)
    finally:
        task.cancel()
    assert consumer.committed == [8, 8]
