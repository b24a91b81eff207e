"""The dead letters of JetStream: read from a topic's stream by sequence, deleted one by one."""

from __future__ import annotations

import base64
import builtins
import datetime
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from protoflow import wire
from protoflow.errors import DeadLetterNotFoundError, PublishError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetter
from protoflow.transport.interface import SubscriptionSettings
from protoflow.transport.kit.replay import replayed
from protoflow.transports.nats.jetstream.api import API, JSON
from protoflow.transports.nats.jetstream.publisher import Publisher
from protoflow.transports.nats.names import Names
from protoflow.transports.nats.wire import headers as wire_headers
from protoflow.transports.nats.wire.client import FastClient
from protoflow.transports.nats.wire.connection import Connection

_PAGE = 500
_REPORTED = 5
_DIGITS = 20


class Letters:
    """Implements `DeadLetters`.

    A letter without payload names where its message lies: the server refused the letter with it,
    for its size. The payload is read from there, as long as the stream keeps it.
    """

    def __init__(
        self, connection: Connection, api: API, names: Names, publisher: Publisher
    ) -> None:
        self._connection = connection
        self._api = api
        self._names = names
        self._publisher = publisher
        #: Dead-letter topics of the configuration, and who buries there: topic and group.
        self._sources: dict[str, set[tuple[str, str]]] = {}

    def know(self, subscriptions: Iterable[SubscriptionSettings]) -> None:
        """Whose letters lie where: a letter's own word is not taken for that."""
        for settings in subscriptions:
            for topic in settings.dead_letter_topics:
                self._sources.setdefault(topic, set()).add((settings.topic, settings.group))

    async def count(self, topic: str) -> int:
        """How many letters wait."""
        subject = self._names.all_of(topic)
        found = await self._api.stream(self._client, self._names.stream(topic), subject)
        counts = (found or {"state": {}})["state"].get("subjects") or {}
        return sum(counts.values())

    async def list(self, topic: str, limit: int) -> Sequence[DeadLetter]:
        """The oldest letters first."""
        letters: builtins.list[DeadLetter] = []
        async for _, letter in self._read(topic):
            if len(letters) >= limit:
                break
            letters.append(letter)
        return letters

    async def show(self, topic: str, id: str) -> DeadLetter:
        """One letter. Raises DeadLetterNotFoundError."""
        async for _, letter in self._read(topic):
            if letter.message.id == id:
                return await self._whole(topic, letter) or letter
        raise DeadLetterNotFoundError(f"no dead letter {id} in {topic}")

    async def replay(self, topic: str, ids: Collection[str] | None, *, to_origin: bool) -> int:
        """Publishes letters again, then deletes them; how many. What cannot be replayed is left
        where it is, and named when all others are done. Raises PublishError."""
        page: list[tuple[int, Message]] = []
        left: builtins.list[str] = []
        done = 0
        async for sequence, letter in self._chosen(topic, ids):
            try:
                page.append((sequence, await self._again(topic, letter, to_origin=to_origin)))
            except _NotReplayableError as error:
                left.append(f"{letter.message.id}: {error}")
            if len(page) >= _PAGE:
                done += await self._publish(topic, page, left)
                page = []
        done += await self._publish(topic, page, left)
        if left:
            more = f" and {len(left) - _REPORTED} more" if len(left) > _REPORTED else ""
            raise PublishError(
                f"{topic}: {done} dead letters were replayed, {len(left)} are left:"
                f" {'; '.join(left[:_REPORTED])}{more}"
            )
        return done

    async def purge(self, topic: str, ids: Collection[str] | None) -> int:
        """Deletes letters; how many."""
        stream = self._names.stream(topic)
        if ids is None:
            return await self._api.purge(self._client, stream, self._names.all_of(topic))
        done = 0
        async for sequence, _ in self._chosen(topic, ids):
            await self._delete(stream, sequence)
            done += 1
        return done

    async def _chosen(
        self, topic: str, ids: Collection[str] | None
    ) -> AsyncIterator[tuple[int, DeadLetter]]:
        """The letters of these ids. Raises DeadLetterNotFoundError before the first if one
        of them is not there."""
        if ids is None:
            async for item in self._read(topic):
                yield item
            return
        found = [item async for item in self._read(topic) if item[1].message.id in ids]
        if missing := sorted({*ids} - {letter.message.id for _, letter in found}):
            raise DeadLetterNotFoundError(f"no dead letter {', '.join(missing)} in {topic}")
        for item in found:
            yield item

    async def _again(self, topic: str, letter: DeadLetter, *, to_origin: bool) -> Message:
        metadata = letter.message.metadata
        origin, group = metadata.get(wire.PF_ORIGINAL_TOPIC), metadata.get(wire.PF_GROUP)
        if not origin or not group:
            raise _NotReplayableError("it names no original topic and group")
        known = self._sources.get(topic)
        if known is not None and (origin, group) not in known:
            raise _NotReplayableError(
                f"it names topic {origin} and group {group}, whose letters are not in this topic"
            )
        whole = await self._whole(topic, letter)
        if whole is None:
            raise _NotReplayableError(
                f"it has no payload, and its message is gone from position"
                f" {metadata.get(wire.PF_ORIGINAL_POSITION)} of {origin}"
            )
        message = replayed(whole.message)
        if message is None:
            raise _NotReplayableError("it names no original topic")
        message.deduplication_id = f"{message.id}:{group}:p{letter.position}.{topic}"
        if not to_origin:
            message.topic = self._names.retry_topic(origin, group)
        return message

    async def _whole(self, topic: str, letter: DeadLetter) -> DeadLetter | None:
        """The letter with its payload, from the topic's stream if need be; None if it is gone."""
        message = letter.message
        place = _place(message.metadata)
        if message.payload is not None or place is None or _has_metadata(message):
            return letter
        origin, sequence = place
        if (known := self._sources.get(topic)) and origin not in {source for source, _ in known}:
            return letter  # nobody reads other streams by way of a forged letter
        stream = self._names.stream(origin)
        stored = await self._api.message(self._client, stream, sequence)
        found = None if stored is None else _letter(origin, stream, stored).message
        if found is None or not _same_id(found.id, message.id):
            return None
        metadata = {**found.metadata, **message.metadata}
        return replace(letter, message=replace(found, topic=topic, metadata=metadata))

    async def _publish(
        self, topic: str, page: Sequence[tuple[int, Message]], left: builtins.list[str]
    ) -> int:
        """Deletes each letter only when its copy is confirmed."""
        results = await self._publisher.submit([message for _, message in page])
        done = 0
        for (sequence, message), error in zip(page, results, strict=True):
            if error is None:
                await self._delete(self._names.stream(topic), sequence)
                done += 1
            else:
                left.append(f"{message.id}: {error}")
        return done

    async def _delete(self, stream: str, sequence: int) -> None:
        request = {"seq": sequence, "no_erase": True}
        await self._api.call(self._client, f"STREAM.MSG.DELETE.{stream}", request)

    async def _read(self, topic: str) -> AsyncIterator[tuple[int, DeadLetter]]:
        """The letters that lie there now, by sequence; not what comes while they are read."""
        stream = self._names.stream(topic)
        info = await self._api.stream(self._client, stream)
        if info is None:
            return
        sequence, last = 1, info["state"]["last_seq"]
        subject = self._names.all_of(topic)
        while sequence <= last:
            stored = await self._api.next_message(self._client, stream, sequence, subject)
            if stored is None:
                return
            sequence = stored["seq"] + 1
            yield stored["seq"], _letter(topic, stream, stored)

    @property
    def _client(self) -> FastClient:
        return self._connection.client


class _NotReplayableError(Exception):
    """Why a letter is left."""


def _place(metadata: Mapping[str, str]) -> tuple[str, int] | None:
    """The topic and the sequence that a letter names; None: it names none of a topic's stream."""
    origin = metadata.get(wire.PF_ORIGINAL_TOPIC)
    position = metadata.get(wire.PF_ORIGINAL_POSITION, "")
    known = position.isdecimal() and len(position) <= _DIGITS
    return (origin, int(position)) if origin and known else None


def _has_metadata(message: Message) -> bool:
    """Whether it is a letter of a tombstone, and not one of which only hop state was kept."""
    return any(
        not name.startswith(wire.PF_PREFIX) and name != wire.CE_SPECVERSION
        for name in message.metadata
    )


def _same_id(found: str, named: str) -> bool:
    return found == named or (len(named) > 100 and found.startswith(named))


def _letter(topic: str, stream: str, stored: JSON) -> DeadLetter:
    payload = base64.b64decode(stored.get("data", ""))
    raw = base64.b64decode(stored.get("hdrs", ""))
    try:
        message = wire_headers.decode(topic, payload, raw)
    except Exception:  # one letter that cannot be read does not hide the others
        message = Message(id="", topic=topic, payload=payload)
    message.id = message.id or f"{stream}:{stored['seq']}"
    return DeadLetter(
        message=message, position=str(stored["seq"]), time=_seconds(stored.get("time", ""))
    )


def _seconds(text: str) -> float:
    """Seconds since the epoch of `2026-01-02T03:04:05.123456789Z`."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    try:
        moment = datetime.datetime.fromisoformat(whole).replace(tzinfo=datetime.UTC)
    except ValueError:
        return 0.0
    return moment.timestamp() + float(f"0.{fraction or 0}")
