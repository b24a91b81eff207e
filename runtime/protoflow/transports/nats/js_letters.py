"""The dead letters of JetStream: read from a topic's stream by sequence, deleted one by one."""

from __future__ import annotations

import base64
import builtins
import datetime
from collections.abc import AsyncIterator, Collection, Sequence

from protoflow import wire
from protoflow.errors import DeadLetterNotFoundError, PublishError
from protoflow.message import Message
from protoflow.replay import replayed
from protoflow.transport import DeadLetter
from protoflow.transports.nats import headers as wire_headers
from protoflow.transports.nats.client import FastClient
from protoflow.transports.nats.connection import Connection
from protoflow.transports.nats.js_api import API, JSON, MESSAGE_NOT_FOUND, APIError
from protoflow.transports.nats.js_publisher import Publisher
from protoflow.transports.nats.names import Names

_PAGE = 500


class Letters:
    """Implements `DeadLetters`."""

    def __init__(
        self, connection: Connection, api: API, names: Names, publisher: Publisher
    ) -> None:
        self._connection = connection
        self._api = api
        self._names = names
        self._publisher = publisher

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
                return letter
        raise DeadLetterNotFoundError(f"no dead letter {id} in {topic}")

    async def replay(self, topic: str, ids: Collection[str] | None, *, to_origin: bool) -> int:
        """Publishes letters again, then deletes them; how many."""
        page: list[tuple[int, Message]] = []
        done = 0
        async for sequence, letter in self._chosen(topic, ids):
            message = self._again(letter.message, sequence, to_origin=to_origin)
            if message is not None:
                page.append((sequence, message))
            if len(page) >= _PAGE:
                done += await self._publish(topic, page)
                page = []
        return done + await self._publish(topic, page)

    async def purge(self, topic: str, ids: Collection[str] | None) -> int:
        """Deletes letters; how many."""
        if ids is None:
            request = {"filter": self._names.all_of(topic)}
            stream = self._names.stream(topic)
            answer = await self._api.call(self._client, f"STREAM.PURGE.{stream}", request)
            return int(answer.get("purged", 0))
        done = 0
        async for sequence, _ in self._chosen(topic, ids):
            await self._delete(topic, sequence)
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

    def _again(self, letter: Message, sequence: int, *, to_origin: bool) -> Message | None:
        message = replayed(letter)
        if message is None:
            return None
        group = letter.metadata.get(wire.PF_GROUP)
        message.deduplication_id = f"{letter.id}:{group or ''}:p{sequence}.{letter.topic}"
        if not to_origin:
            if group is None:
                return None
            message.topic = self._names.retry_topic(message.topic, group)
        return message

    async def _publish(self, topic: str, page: Sequence[tuple[int, Message]]) -> int:
        """Deletes each letter only when its copy is confirmed. Raises PublishError."""
        results = await self._publisher.submit([message for _, message in page])
        for (sequence, _), error in zip(page, results, strict=True):
            if error is None:
                await self._delete(topic, sequence)
        for error in results:
            if error is not None:
                raise PublishError(f"a dead letter of {topic} was not replayed: {error}") from error
        return len(page)

    async def _delete(self, topic: str, sequence: int) -> None:
        stream = self._names.stream(topic)
        request = {"seq": sequence, "no_erase": True}
        await self._api.call(self._client, f"STREAM.MSG.DELETE.{stream}", request)

    async def _read(self, topic: str) -> AsyncIterator[tuple[int, DeadLetter]]:
        """The letters that lie there now, by sequence; not what comes while they are read."""
        stream = self._names.stream(topic)
        info = await self._api.stream(self._client, stream)
        if info is None:
            return
        sequence, last = 1, info["state"]["last_seq"]
        request = {"next_by_subj": self._names.all_of(topic)}
        while sequence <= last:
            try:
                answer = await self._api.call(
                    self._client, f"STREAM.MSG.GET.{stream}", {**request, "seq": sequence}
                )
            except APIError as error:
                if error.code == MESSAGE_NOT_FOUND:
                    return
                raise
            stored = answer["message"]
            sequence = stored["seq"] + 1
            yield stored["seq"], _letter(topic, stream, stored)

    @property
    def _client(self) -> FastClient:
        return self._connection.client


def _letter(topic: str, stream: str, stored: JSON) -> DeadLetter:
    payload = base64.b64decode(stored.get("data", ""))
    message = wire_headers.decode(topic, payload, base64.b64decode(stored.get("hdrs", "")))
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
