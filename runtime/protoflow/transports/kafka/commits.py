"""Commits of explicit offsets, each with its metadata."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from protoflow.transports.kafka.partition import Partition

_log = logging.getLogger("protoflow.transports.kafka")

#: The exceptions that `Commits.commit` may raise.
COMMIT_ERRORS = (KafkaError, TimeoutError)
#: The partition moved away meanwhile, which is normal: its new owner commits.
MOVED_ERRORS = (CommitFailedError, IllegalStateError)


class Commits:
    """The commits of one consumer."""

    def __init__(self, consumer: AIOKafkaConsumer, writer: str, timeout: float) -> None:
        self._consumer = consumer
        self._writer = writer
        self._timeout = timeout

    async def commit(self, partitions: Collection[Partition], *, clean: bool = False) -> None:
        """Commits offsets and metadata. Raises one of COMMIT_ERRORS."""
        if not partitions:
            return
        offsets = {}
        for partition in partitions:
            watermark = partition.watermark
            metadata = partition.metadata(self._writer, clean=clean).encode(watermark)
            offsets[partition.tp] = OffsetAndMetadata(watermark, metadata)
            partition.dirty = False
        try:
            async with asyncio.timeout(self._timeout):
                await self._consumer.commit(offsets)
        except BaseException as error:
            for partition in partitions:
                partition.dirty = True
            if isinstance(error, (*COMMIT_ERRORS, asyncio.CancelledError)):
                raise
            # Whatever the error is, the result is unknown, and the commit is repeated.
            raise KafkaError(f"the answer to a commit is unknown: {error!r}") from error

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

    async def run(self, partitions: Mapping[TopicPartition, Partition], interval: float) -> None:
        """Commits changes at each interval, for ever."""
        while True:
            await asyncio.sleep(interval)
            dirty = [
                partition
                for partition in partitions.values()
                if partition.dirty and not partition.atomic  # otherwise each transaction commits
            ]
            try:
                await self.commit(dirty)
            except MOVED_ERRORS:
                _log.info("a commit came too late: the group has rebalanced")
            except Exception as error:  # whatever the error is, progress is committed again
                _log.warning("a commit failed and is repeated", extra={"error": repr(error)})
