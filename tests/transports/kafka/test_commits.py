"""Commits whose answer is unknown, without a broker."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaConnectionError
from protoflow.transports.kafka.assignment import Assignment
from protoflow.transports.kafka.commits import COMMIT_ERRORS, Commits
from protoflow.transports.kafka.partition import Partition

TP = TopicPartition("orders", 0)


class Late:
    """Counts what a subscription hears of its commits."""

    def __init__(self) -> None:
        self.late = self.confirmed = 0

    def commit_is_late(self) -> None:
        self.late += 1

    def commit_is_confirmed(self) -> None:
        self.confirmed += 1


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
    made = Partition(TP, 0, 7, consumption=Late())
    made.admit(7)
    made.finish(7)
    return made


@pytest.mark.parametrize(
    "failure", [ConnectionResetError("gone"), RuntimeError("whatever"), KafkaConnectionError()]
)
async def test_whatever_fails_is_an_error_that_callers_expect(failure: Exception) -> None:
    item = partition()
    with pytest.raises(COMMIT_ERRORS):
        await Commits(Consumer(failure), "w", 5.0, 1.0).commit([item])
    assert item.dirty, "it is committed anew"
    assert item.late
    assert item.consumption.late == 1


@pytest.mark.parametrize("failure", [ConnectionResetError("gone"), CommitFailedError()])
async def test_a_commit_that_fails_is_repeated(failure: Exception) -> None:
    consumer = Consumer(failure)
    item = partition()
    task = asyncio.create_task(Commits(consumer, "w", 5.0, 0.001).run({TP: item}))
    try:
        async with asyncio.timeout(10):
            while item.dirty and not task.done():
                await asyncio.sleep(0.001)
    finally:
        task.cancel()
    assert consumer.committed == [8, 8]
    assert not item.late


async def test_a_commit_waits_for_the_one_before() -> None:
    """aiokafka repeats a commit that it cannot place: the older one would win."""
    places: list[int] = []
    answered = asyncio.Event()

    class Slow(Consumer):
        async def commit(self, offsets: dict[TopicPartition, Any]) -> None:
            if not self.committed:
                self.committed.append(-1)
                await answered.wait()
            places.append(offsets[TP].offset)

    item = partition()
    commits = Commits(Slow(), "w", 5.0, 1.0)
    older = asyncio.create_task(commits.commit([item]))
    await asyncio.sleep(0)
    item.admit(8)
    item.finish(8)
    newer = asyncio.create_task(commits.commit([item]))
    await asyncio.sleep(0.01)
    answered.set()
    await asyncio.gather(older, newer)
    assert places == [8, 9]


async def test_what_moved_away_while_its_commit_waited_is_not_committed() -> None:
    item = partition()
    item.live = False
    consumer = Consumer()
    await Commits(consumer, "w", 5.0, 1.0).commit([item])
    assert consumer.committed == []


def test_a_limit_ends_when_what_was_late_has_left() -> None:
    left, stays = partition(), Partition(TopicPartition("orders", 1), 1, 0)
    stays.consumption = left.consumption
    assignment = Assignment.__new__(Assignment)
    assignment._partitions = {left.tp: left, stays.tp: stays}
    left.consumption.partitions = dict(assignment._partitions)
    assignment.drop([left])
    assert not left.live
    assert left.consumption.confirmed == 1  # it looks at the partitions that stay
