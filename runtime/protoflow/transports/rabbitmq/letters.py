"""The dead letters of RabbitMQ: looked at by taking them and giving them back, in order."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

import aiormq.exceptions
from pamqp.commands import Queue as Methods

from protoflow import wire
from protoflow.errors import DeadLetterNotFoundError, TopologyError, TransportError
from protoflow.message import Message
from protoflow.replay import replayed
from protoflow.transport import DeadLetter
from protoflow.transports.rabbitmq import codec, frames
from protoflow.transports.rabbitmq.channel import FAILURES, Channel
from protoflow.transports.rabbitmq.link import Link, describe
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.publisher import Publisher

_CHUNK = 100


@dataclass(frozen=True, slots=True)
class _Taken:
    """A letter and the tag that settles it."""

    letter: DeadLetter
    tag: int


class Letters:
    """Counts, lists, replays and purges what lies in dead-letter queues."""

    def __init__(self, link: Link, names: Names, publisher: Publisher) -> None:
        self._link = link
        self._names = names
        self._publisher = publisher

    async def count(self, topic: str) -> int:
        """How many letters wait."""
        return await count(self._link, self._names.dead_letters(topic)) or 0

    async def list(self, topic: str, limit: int) -> Sequence[DeadLetter]:
        """The oldest letters."""
        async with self._channel() as channel:
            return [taken.letter for taken in await self._take(channel, topic, limit)]

    async def show(self, topic: str, id: str) -> DeadLetter:
        """One letter."""
        async with self._channel() as channel:
            return (await self._find(channel, topic, {id}))[0].letter

    async def replay(self, topic: str, ids: Collection[str] | None, *, to_origin: bool) -> int:
        """Publishes letters anew; each is gone only when that is confirmed."""
        replayed, left = 0, await self.count(topic)
        async with self._channel() as channel:
            if ids is not None:
                found = await self._find(channel, topic, ids)
                return await self._replay(channel, found, to_origin)
            while left > 0:  # what comes back while we replay is not replayed again
                chunk = await self._take(channel, topic, min(left, _CHUNK))
                if not chunk:
                    break
                left -= len(chunk)
                replayed += await self._replay(channel, chunk, to_origin)
        return replayed

    async def purge(self, topic: str, ids: Collection[str] | None) -> int:
        """Deletes letters."""
        async with self._channel() as channel:
            if ids is None:
                with contextlib.suppress(aiormq.exceptions.ChannelNotFoundEntity):
                    queue = self._names.dead_letters(topic)
                    return int((await channel.request(Methods.Purge(queue=queue))).message_count)
                return 0
            found = await self._find(channel, topic, ids)
            _ack(channel, found)
            return len(found)

    @contextlib.asynccontextmanager
    async def _channel(self) -> AsyncIterator[Channel]:
        """A channel; when it closes, the queue gets back in order what is not settled."""
        try:
            channel = await self._link.channel(confirms=False)
            try:
                yield channel
            finally:
                await channel.leave()
        except FAILURES as error:
            raise TransportError(f"dead letters of rabbitmq: {describe(error)}") from error

    async def _take(self, channel: Channel, topic: str, limit: int) -> Sequence[_Taken]:
        taken: list[_Taken] = []
        with contextlib.suppress(aiormq.exceptions.ChannelNotFoundEntity):  # no letter ever
            while len(taken) < limit:
                found = await channel.get(self._names.dead_letters(topic))
                if found is None:
                    break
                properties = found.header.properties
                message, _ = codec.decode(topic, properties, found.body, self._names.owner)
                letter = DeadLetter(
                    message=message, position=str(len(taken)), time=codec.sent_at(properties)
                )
                taken.append(_Taken(letter, found.delivery_tag or 0))
        return taken

    async def _find(self, channel: Channel, topic: str, ids: Collection[str]) -> Sequence[_Taken]:
        found: list[_Taken] = []
        missing = {*ids}
        left = await self.count(topic)
        while missing and left > 0:
            chunk = await self._take(channel, topic, min(left, _CHUNK))
            if not chunk:
                break
            left -= len(chunk)
            found += (taken for taken in chunk if taken.letter.message.id in ids)
            missing -= {taken.letter.message.id for taken in chunk}
        if missing:
            raise DeadLetterNotFoundError(f"no dead letter {', '.join(sorted(missing))} in {topic}")
        return found

    async def _replay(self, channel: Channel, taken: Sequence[_Taken], to_origin: bool) -> int:
        messages = [self._renewed(each.letter.message, to_origin) for each in taken]
        results = await self._publisher.submit(messages)
        _ack(
            channel,
            [each for each, error in zip(taken, results, strict=True) if error is None],
        )
        for error in results:
            if error is not None:
                raise error
        return len(taken)

    def _renewed(self, letter: Message, to_origin: bool) -> Message:
        message = replayed(letter)
        if message is None:
            return self._returned(letter, to_origin)
        if to_origin:
            return message
        group = letter.metadata.get(wire.PF_GROUP, "")
        address = self._names.to_group(message.topic, group)
        return dataclasses.replace(message, topic=address, mandatory=True)

    def _returned(self, letter: Message, to_origin: bool) -> Message:
        """A letter that the broker itself wrote, the message having come too often."""
        death = codec.last_death(letter)
        if death is None or not self._names.owns(death.queue):
            raise TopologyError(
                f"dead letter {letter.id} names no original topic, so it cannot be replayed; "
                "publish it anew and purge it"
            )
        address = death.routing_key if to_origin else death.queue
        return dataclasses.replace(letter, topic=address, mandatory=not to_origin)


async def count(link: Link, queue: str) -> int | None:
    """How many messages of a queue are not handed out; None if there is no such queue."""
    try:
        channel = await link.channel(confirms=False)
        try:
            found = await channel.request(Methods.Declare(queue=queue, passive=True))
        finally:
            await channel.leave()
    except aiormq.exceptions.ChannelNotFoundEntity:
        return None
    except FAILURES as error:
        raise TransportError(f"queue {queue}: {describe(error)}") from error
    return int(found.message_count or 0)


def _ack(channel: Channel, taken: Sequence[_Taken]) -> None:
    channel.send(b"".join(frames.ack(channel.number, each.tag) for each in taken))
