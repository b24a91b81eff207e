"""Reads records that aiokafka cannot read.

Other clients may write a header name that is not text, and disks may damage a batch. aiokafka then
raises an error for all partitions at every attempt, and loses records of other partitions that it
has already taken. Here such a record is read leniently and marked, and the records around it are
read normally.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.consumer.fetcher import FetchResult
from aiokafka.errors import (
    CorruptRecordException,
    KafkaConnectionError,
    KafkaError,
    UnsupportedCodecError,
)

from protoflow.transports.kafka.lenient_batches import batch_at, records_of

_log = logging.getLogger("protoflow.transports.kafka")


class Unreadable:
    """The unreadable records, by partition and offset, until they are taken."""

    def __init__(self) -> None:
        self._reasons: dict[TopicPartition, dict[int, str]] = {}
        self._damaged: dict[TopicPartition, int] = {}

    def __bool__(self) -> bool:
        return bool(self._reasons)

    def take(self, tp: TopicPartition) -> dict[int, str]:
        """Returns the reasons why records of a partition could not be read."""
        return self._reasons.pop(tp, {})

    def add(self, tp: TopicPartition, offset: int, reason: str) -> None:
        """Records an unreadable record."""
        self._reasons.setdefault(tp, {})[offset] = reason

    def again(self, tp: TopicPartition, offset: int) -> bool:
        """Returns whether a batch is damaged again, so that the network is not the cause."""
        before = self._damaged.get(tp)
        self._damaged[tp] = offset
        return before == offset


def install(consumer: AIOKafkaConsumer) -> Unreadable:
    """Makes a started consumer read leniently; an aiokafka version with another structure is not
    changed."""
    unreadable = Unreadable()
    fetcher: Any = getattr(consumer, "_fetcher", None)
    client = getattr(fetcher, "_client", None)
    if client is not None and isinstance(getattr(fetcher, "_records", None), OrderedDict):
        client = fetcher._client = _Client(client)
        fetched = _Fetched(client.raw, unreadable)
        fetched.update(fetcher._records)
        fetcher._records = fetched
    return unreadable


class _Client:
    """The fetcher's client, which keeps the bytes of an answer until its records are made."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.raw: dict[TopicPartition, Any] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def send(self, node_id: int, request: Any, **keywords: Any) -> Any:
        try:
            response = await self._client.send(node_id, request, **keywords)
        except KafkaError:
            raise
        except Exception as error:  # any other error would end aiokafka's fetching permanently
            raise KafkaConnectionError(f"fetching failed: {error!r}") from error
        if response.API_KEY == _FETCH:
            self.raw.clear()
            for topic, partitions in response.topics:
                for partition, *rest in partitions:
                    self.raw[TopicPartition(topic, partition)] = rest[-1]
        return response


_FETCH: Final = 1


class _Fetched(OrderedDict[TopicPartition, Any]):
    """The fetcher's results, which are read leniently."""

    def __init__(self, raw: dict[TopicPartition, Any], unreadable: Unreadable) -> None:
        super().__init__()
        self._raw = raw
        self._unreadable = unreadable

    def __setitem__(self, tp: TopicPartition, result: Any) -> None:
        if type(result) is FetchResult:
            result.getall = _Taking(result, tp, self._raw.pop(tp, b""), self._unreadable)
        super().__setitem__(tp, result)


class _Taking:
    """`FetchResult.getall`, but it keeps its records if the next one cannot be read."""

    __slots__ = ("_raw", "_result", "_tp", "_unreadable")

    def __init__(self, result: Any, tp: TopicPartition, raw: Any, unreadable: Unreadable) -> None:
        self._result = result
        self._tp = tp
        self._raw = raw
        self._unreadable = unreadable

    def __call__(self, max_records: int | None = None) -> list[ConsumerRecord]:
        result = self._result
        if not result.check_assignment(self._tp) or not result.has_more():
            return []
        records = result._partition_records
        taken: list[ConsumerRecord] = []
        try:
            taken.extend(islice(records, max_records))
        except UnsupportedCodecError:
            if not taken:
                raise
            result._update_position()
            result._partition_records = None  # the record is fetched again, and then reported
            return taken
        except Exception as error:
            taken += self._pass(records, error)
            result._update_position()
            return taken
        result._update_position()
        if max_records is None or len(taken) < max_records:
            result._partition_records = None
        return taken

    def _pass(self, records: Any, error: Exception) -> list[ConsumerRecord]:
        """Reads the batch in which reading failed; aiokafka continues after it."""
        start: int = records.next_fetch_offset
        batch = batch_at(self._raw, start)
        damaged = isinstance(error, CorruptRecordException) and "CRC" in str(error)
        if batch is None or (damaged and not self._unreadable.again(self._tp, start)):
            # The batch is fetched again, which repairs damage by the network.
            self._result._partition_records = _Nothing(start)
            _log.warning("a batch cannot be read", extra={"partition": str(self._tp)})
            return []
        found = []
        for record, reason in records_of(self._tp, batch, start, repr(error)):
            found.append(record)
            if damaged:
                self._unreadable.add(self._tp, record.offset, reason or "its batch is damaged")
            elif reason is not None:
                self._unreadable.add(self._tp, record.offset, reason)
        records.next_fetch_offset = batch.next_offset
        records._records_iterator = records._unpack_records()
        return found


class _Nothing:
    """No records from an offset on."""

    def __init__(self, offset: int) -> None:
        self.next_fetch_offset = offset

    def __iter__(self) -> Iterator[ConsumerRecord]:
        return iter(())
