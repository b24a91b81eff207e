"""The dead letters of RabbitMQ: looked at by taking them and giving them back, in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass

from pamqp.commands import Queue as Methods

from protoflow.errors import DeadLetterNotFoundError, TopologyError, TransportError
from protoflow.message import Message
from protoflow.transport.dead_letters import DeadLetter
from protoflow.transports.rabbitmq import codec, frames
from protoflow.transports.rabbitmq.channel import FAILURES, Channel
from protoflow.transports.rabbitmq.link import Link, describe
from protoflow.transports.rabbitmq.names import Names
from protoflow.transports.rabbitmq.probe import count
from protoflow.transports.rabbitmq.publisher import Publisher
from protoflow.transports.rabbitmq.targets import Targets

_logger = logging.getLogger("protoflow.rabbitmq")

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
            (_, tag, _, _), properties, body = found
            message, _ = codec.decode(self._topic, properties, body, self._names.owner)
            letter = DeadLetter(message=message, position=str(tag), time=codec.buried_at(message))
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
    """Counts, lists, replays and purges what lies in dead-letter queues.

    Attributes:
        sources: the topics and groups whose letters go to a dead-letter topic, as the service
            has them in its contract.
    """

    def __init__(self, link: Link, names: Names, publisher: Publisher) -> None:
        self.sources: dict[str, set[tuple[str, str]]] = {}
        self._link = link
        self._names = names
        self._publisher = publisher
        self._visiting = asyncio.Lock()  # what one has taken another would not see

    async def count(self, topic: str) -> int:
        """How many letters wait."""
        return await count(self._link, self._names.dead_letters(topic)) or 0

    async def list(self, topic: str, limit: int) -> Sequence[DeadLetter]:
        """The oldest letters."""
        async with self._visit(topic) as visit:
            return [taken.letter for taken in await visit.take(limit)]

    async def show(self, topic: str, id: str) -> DeadLetter:
        """One letter."""
        async with self._visit(topic) as visit:
            return (await visit.find({id}))[0].letter

    async def replay(self, topic: str, ids: Collection[str] | None, *, to_origin: bool) -> int:
        """Publishes letters anew; each is gone only when that is confirmed."""
        async with self._visit(topic) as visit:
            targets = Targets(self._names, self.sources.get(topic), to_origin=to_origin)
            if ids is not None:
                return await self._replay(visit, await visit.find(ids), targets, some=True)
            replayed = 0
            while chunk := await visit.take(_CHUNK):
                replayed += await self._replay(visit, chunk, targets, some=False)
            return replayed

    async def purge(self, topic: str, ids: Collection[str] | None) -> int:
        """Deletes letters."""
        async with self._visit(topic) as visit:
            if ids is None:
                return await visit.purge()
            found = await visit.find(ids)
            visit.ack(found)
            return len(found)

    @contextlib.asynccontextmanager
    async def _visit(self, topic: str) -> AsyncIterator[_Visit]:
        async with self._visiting:
            waiting = await self.count(topic)
            try:
                channel = await self._link.channel(confirms=False)
                visit = _Visit(channel, topic, self._names, waiting)
                try:
                    yield visit
                finally:
                    await channel.leave()
                    await self._back(topic, waiting - visit.removed)
            except FAILURES as error:
                raise TransportError(f"dead letters of rabbitmq: {describe(error)}") from error

    async def _back(self, topic: str, expected: int) -> None:
        """Waits until the queue has what went back; it says so a little later. Not for long:
        somebody else may have taken it."""
        deadline = asyncio.get_running_loop().time() + _BACK_SECONDS
        while await self.count(topic) < expected:
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(0.005)

    async def _replay(
        self, visit: _Visit, taken: Sequence[_Taken], targets: Targets, *, some: bool
    ) -> int:
        """Replays letters. Those that cannot be are told, and are in nobody's way: an error
        where some were asked for by their ids, else a warning."""
        sent: list[tuple[_Taken, Message]] = []
        problems: list[TopologyError] = []
        for each in taken:
            try:
                sent.append((each, targets.renewed(each.letter.message)))
            except TopologyError as error:
                problems.append(error)
        results = await self._publisher.submit([message for _, message in sent])
        done = [each for (each, _), error in zip(sent, results, strict=True) if error is None]
        visit.ack(done)
        for failure in results:
            if failure is not None:
                raise failure
        if problems and some:
            raise TopologyError("\n".join(map(str, problems)))
        for problem in problems:
            _logger.warning("not replayed: %s", problem)
        return len(done)
