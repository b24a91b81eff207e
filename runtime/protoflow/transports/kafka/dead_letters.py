"""Dead letters on dead-letter topics: a log, so what is resolved is marked, not removed."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import KafkaError

from protoflow import wire
from protoflow.errors import DeadLetterNotFoundError, TopologyError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetter
from protoflow.transport.kit.replay import replayed
from protoflow.transports.kafka import headers, names
from protoflow.transports.kafka.asking import describe
from protoflow.transports.kafka.context import Context
from protoflow.transports.kafka.errors import transport_error
from protoflow.transports.kafka.looking import Look, look
from protoflow.transports.kafka.publisher import Publisher, partition_of

_MARKER = wire.PF_DLQ_RESOLVED
_MARKER_KEY = _MARKER.encode()
#: No offset has so many digits.
_DIGITS = 20
_CHUNK = 200
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an open letter lies."""

    tp: TopicPartition
    offset: int
    id: str
    time: float


class KafkaDeadLetters:
    """See `protoflow.transport.DeadLetters`. A letter is open until a marker with its offset
    follows it in its partition."""

    def __init__(self, context: Context, publisher: Publisher) -> None:
        self._context = context
        self._publisher = publisher

    async def count(self, topic: str) -> int:
        """How many letters are open."""
        async with self._looking(topic) as looking:
            return len(await _open(looking))

    async def list(self, topic: str, limit: int) -> Sequence[DeadLetter]:
        """The oldest open letters."""
        async with self._looking(topic) as looking:
            return await _read(looking, (await _open(looking))[:limit])

    async def show(self, topic: str, id: str) -> DeadLetter:
        """One open letter; the newest of that id."""
        async with self._looking(topic) as looking:
            places = _chosen(await _open(looking), {id}, topic)
            return (await _read(looking, places[-1:]))[0]

    async def replay(self, topic: str, ids: Collection[str] | None, *, to_origin: bool) -> int:
        """Publishes letters again and marks them, in portions: what fails stays open."""
        async with self._looking(topic) as looking:
            places = _chosen(await _open(looking), ids, topic)
            for portion in _portions(places):
                letters = await _read(looking, portion)
                messages = [_replayed(letter.message, to_origin=to_origin) for letter in letters]
                if to_origin:
                    await self._publish(messages)
                else:
                    await self._to_groups(messages, letters)
                await self._mark(topic, portion)
        return len(places)

    async def purge(self, topic: str, ids: Collection[str] | None) -> int:
        """Marks letters, or truncates the topic."""
        async with self._looking(topic) as looking:
            ends = await looking.ends()
            places = _chosen(await _open(looking), ids, topic)
            if ids is None:
                deleted = {tp: RecordsToDelete(before_offset=end) for tp, end in ends.items()}
                await self._context.admin.delete_records(deleted)
            else:
                for portion in _portions(places):
                    await self._mark(topic, portion)
        return len(places)

    async def _to_groups(self, messages: Sequence[Message], letters: Sequence[DeadLetter]) -> None:
        """Each goes to the partition that its key's live messages come from, so that the
        process which has them keeps the two apart."""
        counts: dict[str, int] = {}
        for message in messages:
            name = names.physical(message.topic)
            if name not in counts:
                found = await describe(self._context.admin, [name])
                if name not in found:
                    raise TopologyError(f"kafka: topic {name} is missing")
                counts[name] = len(found[name])
        places = [
            _place(message, letter.message, counts[names.physical(message.topic)])
            for message, letter in zip(messages, letters, strict=True)
        ]
        await self._publish(messages, places)

    def _looking(self, topic: str) -> _Translated:
        return _Translated(self._context, names.physical(topic), topic)

    async def _publish(
        self, messages: Sequence[Message], partitions: Sequence[int] | None = None
    ) -> None:
        for error in await self._publisher.submit(messages, partitions):
            if error is not None:
                raise error

    async def _mark(self, topic: str, places: Sequence[_Place]) -> None:
        markers = [
            Message(
                id=place.id,
                topic=topic,
                payload=None,
                key=_MARKER_KEY,
                metadata={_MARKER: str(place.offset)},
            )
            for place in places
        ]
        await self._publish(markers, [place.tp.partition for place in places])


class _Translated:
    """`look`, with the client's exceptions as ours."""

    def __init__(self, context: Context, physical: str, topic: str) -> None:
        self._looking = look(context, physical)
        self._topic = topic

    async def __aenter__(self) -> Look:
        try:
            return await self._looking.__aenter__()
        except KafkaError as error:
            raise transport_error(error, "dead letters", self._topic) from error

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        await self._looking.__aexit__(None, None, None)
        if isinstance(error, KafkaError):
            raise transport_error(error, "dead letters", self._topic) from error


async def _open(looking: Look) -> list[_Place]:
    """Open letters, the oldest first: letters and markers folded in one pass."""
    places: dict[tuple[TopicPartition, int], _Place] = {}
    async for record in looking.records(await looking.ends()):
        tp = TopicPartition(record.topic, record.partition)
        resolved = _resolved(record)
        if resolved is not None:
            places.pop((tp, resolved), None)
        else:
            id, _ = _identity(record)
            places[tp, record.offset] = _Place(tp, record.offset, id, record.timestamp / 1000)
    letters = places.values()
    return sorted(letters, key=lambda place: (place.time, place.tp, place.offset))


def _resolved(record: ConsumerRecord) -> int | None:
    """The offset of the letter that a record marks as resolved; None if it is a letter.

    A marker is what the runtime writes: no payload, its own key, and nothing of a letter. A
    header alone is no marker: it may have come with a message.
    """
    if record.value is not None or record.key != _MARKER_KEY:
        return None
    _, metadata = _identity(record)
    offset = metadata.get(_MARKER, "")
    if wire.PF_DEAD_LETTER in metadata or not (offset.isascii() and offset.isdecimal()):
        return None
    return int(offset) if len(offset) < _DIGITS else None


async def _read(looking: Look, places: Sequence[_Place]) -> list[DeadLetter]:
    """The letters at these places, in the same order."""
    if not places:
        return []
    starts: dict[TopicPartition, int] = {}
    ends: dict[TopicPartition, int] = {}
    for place in places:
        starts[place.tp] = min(starts.get(place.tp, place.offset), place.offset)
        ends[place.tp] = max(ends.get(place.tp, 0), place.offset + 1)
    wanted = {(place.tp, place.offset): index for index, place in enumerate(places)}
    letters: dict[int, DeadLetter] = {}
    async for record in looking.records(ends, starts):
        place_index = wanted.get((TopicPartition(record.topic, record.partition), record.offset))
        if place_index is not None:
            letters[place_index] = _letter(record)
    return [letters[index] for index in sorted(letters)]


def _identity(record: ConsumerRecord) -> tuple[str, dict[str, str]]:
    id, metadata, _ = headers.read(record.headers)
    return id or f"{record.topic}-{record.partition}-{record.offset}", metadata


def _letter(record: ConsumerRecord) -> DeadLetter:
    id, metadata = _identity(record)
    return DeadLetter(
        message=Message(
            id=id,
            topic=record.topic,
            payload=record.value,
            key=record.key,
            metadata=metadata,
            headers=record.headers,
        ),
        position=f"{record.partition}/{record.offset}",
        time=record.timestamp / 1000,
    )


def _chosen(places: list[_Place], ids: Collection[str] | None, topic: str) -> list[_Place]:
    if ids is None:
        return places
    wanted = {*ids}
    if missing := sorted(wanted - {place.id for place in places}):
        raise DeadLetterNotFoundError(f"no dead letter {', '.join(missing)} in {topic}")
    return [place for place in places if place.id in wanted]


def _replayed(letter: Message, *, to_origin: bool) -> Message:
    """The message for the topic or for the group that failed alone, attempts forgotten."""
    message = replayed(letter)
    group = letter.metadata.get(wire.PF_GROUP)
    if message is None or not (to_origin or group):
        raise TopologyError(
            f"kafka: dead letter {letter.id} names no original topic or group, so it cannot be"
            " replayed; publish it anew and purge it"
        )
    if to_origin:
        return message
    return dataclasses.replace(
        message,
        topic=names.retry_topic(message.topic, group or "", 0.0),
        metadata={**message.metadata, wire.PF_GROUP: group or ""},
    )


def _place(message: Message, letter: Message, partitions: int) -> int:
    """The partition of a retry topic with so many partitions."""
    origin = letter.metadata.get(wire.PF_ORIGINAL_SHARD, "").rpartition("/")[2]
    known = origin.isascii() and origin.isdecimal() and len(origin) < _DIGITS
    if known and int(origin) < partitions:
        return int(origin)
    return partition_of(message.key or b"", partitions)


def _portions(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _CHUNK):
        yield items[start : start + _CHUNK]
