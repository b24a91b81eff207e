"""Dead letters in dead-letter topics, which are logs: resolved ones are marked, not removed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError

from protoflow import wire
from protoflow.contract.spec import Start
from protoflow.errors import NotReplayableError, PublishError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import DeadLetterSources, number_of, replay_in_order
from protoflow.transports.kafka import names
from protoflow.transports.kafka.broker_queries import describe
from protoflow.transports.kafka.context import KafkaContext
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.publisher import KafkaPublisher, partition_of
from protoflow.transports.kafka.topic_scan import TopicScan, as_record, identity_of, open_scan

_MARKER = wire.PF_DLQ_RESOLVED
_MARKER_KEY = _MARKER.encode()
#: An offset has at most this many digits.
_DIGITS = 20


@dataclass(frozen=True, slots=True)
class _Location:
    """The place of an open dead letter."""

    tp: TopicPartition
    offset: int
    id: str
    time: float

    @property
    def age(self) -> tuple[float, TopicPartition, int]:
        """The sort key for dead letters of several partitions."""
        return self.time, self.tp, self.offset


class KafkaDeadLetterStore:
    """Implements `DeadLetterStore`.

    A dead letter is open until a marker with its offset follows it in its partition. A
    position is `<partition>/<offset>`.

    Args:
        context: returns the context of the transport; raises while the transport is not open.
        publisher: returns the publisher; raises while the transport is not open.

    Attributes:
        sources: the subscriptions, with their dead-letter topics.
    """

    def __init__(
        self, context: Callable[[], KafkaContext], publisher: Callable[[], KafkaPublisher]
    ) -> None:
        self.sources = DeadLetterSources()
        self.context = context
        self.publisher = publisher

    async def count(self, topic: str) -> int:
        """Returns the number of open dead letters."""
        async with self._looking(topic) as looking:
            return len(await _open(looking))

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[KafkaScan]:
        """Begins a scan."""
        partition, _, offset = after.partition("/")
        last = number_of(partition), number_of(offset) if after else -1
        async with self._looking(topic) as looking:
            found = await _open(looking, last)
            if ids is not None:
                found = [location for location in found if location.id in ids]
            yield KafkaScan(self, topic, looking, found)

    async def clear(self, topic: str) -> int:
        """Truncates the topic; returns the number of dead letters that were open."""
        async with self._looking(topic) as looking:
            ends = await looking.ends()
            count = len(await _open(looking))
            deleted = {tp: RecordsToDelete(before_offset=end) for tp, end in ends.items()}
            await self.context().admin.delete_records(deleted)
        return count

    @asynccontextmanager
    async def _looking(self, topic: str) -> AsyncIterator[TopicScan]:
        try:
            async with open_scan(self.context(), names.physical(topic)) as looking:
                yield looking
        except KafkaError as error:
            raise transport_error(error, "dead letters", topic) from error


@dataclass(slots=True)
class KafkaScan:
    """Implements `DeadLetterScan`.

    Attributes:
        store: the dead letters of the transport.
        topic: the dead-letter topic.
        looking: the scan that reads the topic.
        locations: the positions of its open dead letters, the oldest first.
    """

    store: KafkaDeadLetterStore
    topic: str
    looking: TopicScan
    locations: Sequence[_Location]
    _partitions: dict[str, int] = field(default_factory=dict)

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        taken, self.locations = self.locations[:limit], self.locations[limit:]
        return await _read(self.looking, self.topic, taken)

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes records again and marks those that are confirmed."""

        async def address(record: DeadLetterRecord) -> Message:
            message, group = self.store.sources.replayed(record, to_origin=to_origin)
            return message if to_origin else await self._to_group(message, group)

        async def publish(
            records: Sequence[DeadLetterRecord], messages: Sequence[Message]
        ) -> Sequence[PublishError | None]:
            partitions = None if to_origin else list(map(self._partition, records, messages))
            return await self.store.publisher().submit(messages, partitions)

        return await replay_in_order(records, address, publish, self.remove)

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Marks records as resolved."""
        places = [record.position.split("/") for record in records]
        markers = [
            Message(
                id=record.message.id,
                topic=self.topic,
                payload=None,
                key=_MARKER_KEY,
                metadata={_MARKER: offset},
            )
            for record, (_, offset) in zip(records, places, strict=True)
        ]
        partitions = [int(partition) for partition, _ in places]
        for error in await self.store.publisher().submit(markers, partitions):
            if error is not None:
                raise error

    async def _to_group(self, message: Message, group: str) -> Message:
        """Returns the message for this group only, addressed to its retry topic."""
        topic = names.retry_topic(message.topic, group, 0.0)
        if topic not in self._partitions:
            name = names.physical(topic)
            found = await describe(self.store.context().admin, [name])
            if name not in found:
                raise NotReplayableError(
                    f"topic {name} is missing, so no group {group!r:.100} of "
                    f"{message.topic!r:.100} gets it; replay it to its original topic"
                )
            self._partitions[topic] = len(found[name])
        metadata = {**message.metadata, wire.PF_GROUP: group}
        return replace(message, topic=topic, metadata=metadata)

    def _partition(self, record: DeadLetterRecord, message: Message) -> int:
        """Returns the retry partition with the number of the key's partition in the topic.

        So one process gets both, and keeps their order.
        """
        partitions = self._partitions[message.topic]
        origin = record.message.metadata.get(wire.PF_ORIGINAL_SHARD, "").rpartition("/")[2]
        known = origin.isascii() and origin.isdecimal() and len(origin) < _DIGITS
        if known and int(origin) < partitions:
            return int(origin)
        return partition_of(message.key or b"", partitions)


async def _open(looking: TopicScan, after: tuple[int, int] = (0, -1)) -> list[_Location]:
    """Returns the open dead letters after a location, the oldest first.

    It reads dead letters and markers in one pass. `after` is a partition and an offset.
    """
    locations: dict[tuple[TopicPartition, int], _Location] = {}
    last: _Location | None = None
    ends = await looking.ends()
    async for record in looking.records(await looking.starts(Start.EARLIEST, ends), ends):
        tp = TopicPartition(record.topic, record.partition)
        resolved = _resolved(record)
        if resolved is not None:
            locations.pop((tp, resolved), None)
            continue
        id, _ = identity_of(record)
        location = _Location(tp, record.offset, id, record.timestamp / 1000)
        locations[tp, record.offset] = location
        if (record.partition, record.offset) == after:
            last = location
    found = sorted(locations.values(), key=lambda location: location.age)
    return found if last is None else [each for each in found if each.age > last.age]


def _resolved(record: ConsumerRecord) -> int | None:
    """Returns the offset that a record marks as resolved; None if it is a dead letter.

    The runtime writes a marker without payload, with its own key, and without the headers of a dead
    letter. A header alone does not make a marker, because a message may contain it.
    """
    if record.value is not None or record.key != _MARKER_KEY:
        return None
    _, metadata = identity_of(record)
    offset = metadata.get(_MARKER, "")
    if wire.PF_DEAD_LETTER in metadata or not (offset.isascii() and offset.isdecimal()):
        return None
    return int(offset) if len(offset) < _DIGITS else None


async def _read(
    looking: TopicScan, topic: str, locations: Sequence[_Location]
) -> list[DeadLetterRecord]:
    """Returns the dead letters at these locations, in the same order."""
    if not locations:
        return []
    starts: dict[TopicPartition, int] = {}
    ends: dict[TopicPartition, int] = {}
    for each in locations:
        starts[each.tp] = min(starts.get(each.tp, each.offset), each.offset)
        ends[each.tp] = max(ends.get(each.tp, 0), each.offset + 1)
    wanted = {(each.tp, each.offset): index for index, each in enumerate(locations)}
    records: dict[int, DeadLetterRecord] = {}
    async for record in looking.records(starts, ends):
        index = wanted.get((TopicPartition(record.topic, record.partition), record.offset))
        if index is not None:
            records[index] = as_record(DeadLetterRecord, topic, record)
    return [records[index] for index in sorted(records)]
