"""Commits explicit offsets with their metadata, and limits deliveries while commits are late."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from protoflow.transports.kafka.partition import Partition

_log = logging.getLogger("protoflow.transports.kafka")

#: The exceptions that `Commits.commit` may raise.
COMMIT_ERRORS = (KafkaError, TimeoutError)
#: Normal errors: the partition has moved away, and its new owner commits.
MOVED_ERRORS = (CommitFailedError, IllegalStateError)


class Commits:
    """The commits of one consumer.

    Messages that are settled but not committed are handled again after a fault. If a commit fails,
    or gets no answer within an interval, its subscriptions hand out a limited number of messages
    until a commit succeeds.

    Args:
        consumer: the consumer of aiokafka.
        writer: the name of this process.
        timeout: seconds that a commit may take.
        interval: seconds between two commits; a commit that takes longer is late.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, writer: str, timeout: float, interval: float
    ) -> None:
        self._consumer = consumer
        self._writer = writer
        self._timeout = timeout
        self._interval = interval
        # aiokafka repeats failed commits, so an older commit could overtake a newer one.
        self._turn = asyncio.Lock()

    async def commit(self, partitions: Collection[Partition], *, clean: bool = False) -> None:
        """Commits offsets and metadata. Raises one of COMMIT_ERRORS."""
        if not partitions:
            return
        late = asyncio.get_running_loop().call_later(self._interval, _set_late, partitions)
        try:
            async with asyncio.timeout(self._timeout), self._turn:
                if offsets := self._offsets(partitions, clean=clean):
                    await self._consumer.commit(offsets)
        except BaseException as error:
            for partition in partitions:
                partition.dirty = True
            _set_late(partitions)
            if isinstance(error, (*COMMIT_ERRORS, asyncio.CancelledError)):
                raise
            # Whatever the error is, the result is unknown, and the commit is repeated.
            raise KafkaError(f"the answer to a commit is unknown: {error!r}") from error
        finally:
            late.cancel()
        _set_confirmed(partitions)

    def _offsets(
        self, partitions: Collection[Partition], *, clean: bool
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        offsets = {}
        for partition in _live(partitions):
            watermark = partition.watermark
            metadata = partition.metadata(self._writer, clean=clean).encode(watermark)
            offsets[partition.tp] = OffsetAndMetadata(watermark, metadata)
            partition.dirty = False
        return offsets

    async def finally_commit(
        self, partitions: Collection[Partition], *, clean: bool, seconds: float
    ) -> None:
        """Commits for the last time, without waiting for a broker that does not answer."""
        try:
            async with asyncio.timeout(seconds):
                await self.commit(partitions, clean=clean)
        except COMMIT_ERRORS as error:
            names = ", ".join(sorted({partition.tp.topic for partition in partitions}))
            _log.warning(
                "stopped without the last commit, and messages may be redelivered",
                extra={"topics": names, "error": repr(error)},
            )

    async def run(self, partitions: Mapping[TopicPartition, Partition]) -> None:
        """Commits changes at each interval, for ever."""
        together = True
        while True:
            await asyncio.sleep(self._interval)
            dirty = [
                partition
                for partition in partitions.values()
                # an atomic partition commits in its transactions
                if partition.dirty and not partition.atomic
            ]
            # A refused commit of one subscription must not delay the others.
            groups = [dirty] if together else _by_subscription(dirty)
            together = True
            for group in groups:
                try:
                    await self.commit(group)
                except MOVED_ERRORS:
                    _log.info("a commit came too late: the group has rebalanced")
                except Exception as error:  # whatever the error is, progress is committed again
                    _log.warning("a commit failed and is repeated", extra={"error": repr(error)})
                    together = False


def _by_subscription(partitions: Collection[Partition]) -> list[list[Partition]]:
    groups: dict[Any, list[Partition]] = defaultdict(list)
    for partition in partitions:
        groups[partition.consumption].append(partition)
    return list(groups.values())


def _live(partitions: Collection[Partition]) -> list[Partition]:
    """Returns the partitions that did not move away while the commit waited its turn."""
    return [partition for partition in partitions if partition.live]


def _set_late(partitions: Collection[Partition]) -> None:
    for partition in _live(partitions):
        partition.late = True
        partition.consumption.commit_is_late()


def _set_confirmed(partitions: Collection[Partition]) -> None:
    for partition in partitions:
        partition.late = False
        partition.consumption.commit_is_confirmed()
