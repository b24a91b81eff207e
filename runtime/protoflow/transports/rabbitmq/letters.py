"""The dead letters of RabbitMQ: looked at by taking them and giving them back, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from pamqp.commands import Queue as Methods

from protoflow.errors import DeadLetterNotFoundError
from protoflow.transport import DeadLetter
from protoflow.transports.rabbitmq import codec, frames
from protoflow.transports.rabbitmq.channel import Channel
from protoflow.transports.rabbitmq.link import Link
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.publisher import Publisher

_CHUNK = 100
_BACK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class _Taken:
    """A letter and the tag that settles it."""

    letter: DeadLetter
    tag: int


class _Visit:
    """A look into one dead-letter queue. What is not acknowledged goes back, in order.

    Attributes:
        left: how many letters waited when the visit began, and were not taken since.
        removed: how many were removed.
    """

    def __init__(self, channel: Channel, topic: str, names: Names, waiting: int) -> None:
        self.left = waiting
        self.removed = 0
        self._channel = channel
        self._topic = topic
        self._names = names

    async def take(self, limit: int) -> Sequence[_Taken]:
        """The next letters; never those that came after the visit began."""
        taken: list[_Taken] = []
        while self.left > 0 and len(taken) < limit:
            found = await self._channel.get(self._names.dead_letters(self._topic))
            if found is None:
                self.left = 0
                break
            self.left -= 1
            properties = found.header.properties
            message, _ = codec.decode(self._topic, properties, found.body, self._names.owner)
            tag = found.delivery_tag or 0
            letter = DeadLetter(message=message, position=str(tag), time=codec.sent_at(properties))
            taken.append(_Taken(letter, tag))
        return taken

    async def find(self, ids: Collection[str]) -> Sequence[_Taken]:
        """The letters of these ids. Raises DeadLetterNotFoundError."""
        found: list[_Taken] = []
        missing = {*ids}
        while missing and (chunk := await self.take(_CHUNK)):
            found += (taken for taken in chunk if taken.letter.message.id in ids)
            missing -= {taken.letter.message.id for taken in chunk}
        if missing:
            raise DeadLetterNotFoundError(
                f"no dead letter {', '.join(sorted(missing))} in {self._topic}"
            )
        return found

    async def purge(self) -> int:
        """Removes all letters."""
        if not self.left:
            return 0
        queue = self._names.dead_letters(self._topic)
        purged = await self._channel.request(Methods.Purge(queue=queue))
        self.removed = int(purged.message_count or 0)
        return self.removed

    def ack(self, taken: Sequence[_Taken]) -> None:
        """Removes letters."""
        self.removed += len(taken)
        number = self._channel.number
        self._channel.send(b"".join(frames.ack(number, each.tag) for each in taken))


class Letters:
    """Counts, lists, replays and purges what lies in dead-letter queues."""

    def __init__(self, link: Link, names: Names, publisher: Publisher) -> None:
        self._link = link
        self._names = names
        self._publisher = publisher
        self._visiting = asyncio.Lock()  # what one has taken another would not see
