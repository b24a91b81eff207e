"""The dead letters of JetStream: read from a topic's stream by sequence, deleted one by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from protoflow import wire
from protoflow.errors import NotReplayableError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.replay import (
    DeadLetterSources,
    number_of,
    publish_with,
    replay_in_order,
)
from protoflow.transports.nats.jetstream.api import API
from protoflow.transports.nats.jetstream.durables import subjects_of
from protoflow.transports.nats.jetstream.publisher import JetStreamPublisher
from protoflow.transports.nats.jetstream.topic_reader import as_record
from protoflow.transports.nats.names import JetStreamNames, check

_DIGITS = 20


class JetStreamDeadLetterStore:
    """Implements `DeadLetterStore`. A position is a sequence of the stream.

    A dead letter without payload may name the place of its message, because the server refused the
    larger dead letter. The payload is read from there, as long as the stream keeps it.

    Attributes:
        sources: the subscriptions by dead-letter topic.
        api: sends requests to the server.
        names: the names.
        publisher: publishes replays.
    """

    def __init__(self, api: API, names: JetStreamNames, publisher: JetStreamPublisher) -> None:
        self.sources = DeadLetterSources()
        self.api = api
        self.names = names
        self.publisher = publisher

    async def count(self, topic: str) -> int:
        """Returns the number of waiting dead letters."""
        subject = self.names.all_of(topic)
        found = await self.api.stream(self.names.stream(topic), subject)
        counts = (found or {"state": {}})["state"].get("subjects") or {}
        return sum(counts.values())

    @asynccontextmanager
    async def scan(
        self, topic: str, *, after: str = "", ids: Collection[str] | None = None
    ) -> AsyncIterator[JetStreamScan]:
        """Begins a scan."""
        first = number_of(after) + 1
        info = await self.api.stream(self.names.stream(topic))
        yield JetStreamScan(self, topic, first, info["state"]["last_seq"] if info else 0)

    async def clear(self, topic: str) -> int:
        """Removes all dead letters."""
        return await self.api.purge(self.names.stream(topic), self.names.all_of(topic))


class JetStreamScan:
    """Implements `DeadLetterScan` over a range of sequences."""

    def __init__(self, store: JetStreamDeadLetterStore, topic: str, first: int, last: int) -> None:
        self._store = store
        self._topic = topic
        self._stream = store.names.stream(topic)
        self._next = first
        self._last = last
        self._addresses: dict[tuple[str, str], str] = {}

    async def take(self, limit: int) -> Sequence[DeadLetterRecord]:
        """Returns the next records."""
        store, taken = self._store, list[DeadLetterRecord]()
        subject = store.names.all_of(self._topic)
        while len(taken) < limit and self._next <= self._last:
            stored = await store.api.next_message(self._stream, self._next, subject)
            if stored is None or stored["seq"] > self._last:
                self._next = self._last + 1
                break
            self._next = stored["seq"] + 1
            taken.append(
                await self._completed(
                    as_record(DeadLetterRecord, self._topic, self._stream, stored)
                )
            )
        return taken

    async def replay(
        self, records: Sequence[DeadLetterRecord], *, to_origin: bool
    ) -> Sequence[Exception | None]:
        """Publishes records again and deletes the confirmed ones."""

        async def address(record: DeadLetterRecord) -> Message:
            message, group = self._store.sources.replayed(record, to_origin=to_origin)
            if _lies_elsewhere(record.message) is not None:
                raise NotReplayableError(
                    "it has no payload, and its message is gone from position"
                    f" {record.message.metadata.get(wire.PF_ORIGINAL_POSITION)} of {message.topic}"
                )
            if to_origin:
                return message
            return replace(message, topic=await self._address(message.topic, group))

        publish = publish_with(self._store.publisher.submit)
        return await replay_in_order(records, address, publish, self.remove)

    async def remove(self, records: Sequence[DeadLetterRecord]) -> None:
        """Deletes records."""
        store = self._store
        for record in records:
            request = {"seq": int(record.position), "no_erase": True}
            await store.api.call(f"STREAM.MSG.DELETE.{self._stream}", request)

    async def _address(self, topic: str, group: str) -> str:
        """Returns the address for messages that only this group gets again. An ordered group gets
        them among the messages of their key, if its durables read that subject; otherwise the
        replay would be lost."""
        if (address := self._addresses.get((topic, group))) is None:
            names = self._store.names
            retry, replay = names.retry_topic(topic, group), names.replay_topic(topic, group)
            address = replay if await self._is_read(topic, group, replay) else retry
            self._addresses[topic, group] = address
        return address

    async def _is_read(self, topic: str, group: str, address: str) -> bool:
        """Whether each durable of a group reads its shard of an address."""
        names = self._store.names
        if names.source(topic) is not None:
            return False  # nothing of ours is written there
        subjects = names.subjects(address)
        try:
            check(subjects[0])
        except ValueError:
            return False  # the publisher refuses such a name
        for durable, subject in zip(names.consumers(topic, group), subjects, strict=True):
            info = await self._store.api.consumer(names.stream(topic), durable)
            if info is None or subject not in subjects_of(info["config"]):
                return False
        return True

    async def _completed(self, record: DeadLetterRecord) -> DeadLetterRecord:
        """Returns the dead letter, with its payload from the topic's stream if necessary."""
        store, message = self._store, record.message
        place = _lies_elsewhere(message)
        # A forged dead letter must not give access to other streams.
        if place is None or not store.sources.has_topic(self._topic, place[0]):
            return record
        origin, sequence = place
        stream = store.names.stream(origin)
        stored = await store.api.message(stream, sequence)
        found = (
            None if stored is None else as_record(DeadLetterRecord, origin, stream, stored).message
        )
        if found is None or not _same_id(found.id, message.id):
            return record
        metadata = {**found.metadata, **message.metadata}
        return replace(record, message=replace(found, topic=self._topic, metadata=metadata))


def _lies_elsewhere(message: Message) -> tuple[str, int] | None:
    """Returns topic and sequence of the payload; None if the dead letter is complete."""
    origin = message.metadata.get(wire.PF_ORIGINAL_TOPIC)
    position = message.metadata.get(wire.PF_ORIGINAL_POSITION, "")
    known = origin and position.isdecimal() and len(position) <= _DIGITS
    if message.payload is not None or not known or _has_metadata(message):
        return None
    return origin or "", int(position)


def _has_metadata(message: Message) -> bool:
    """Whether it is of a tombstone, and not one of which only hop state was kept."""
    return any(
        not name.startswith(wire.PF_PREFIX) and name != wire.CE_SPECVERSION
        for name in message.metadata
    )


def _same_id(found: str, named: str) -> bool:
    return found == named or (len(named) > 100 and found.startswith(named))
