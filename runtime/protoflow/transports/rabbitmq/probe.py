"""Asking the server about queues, on channels that are for nothing else."""

from __future__ import annotations

import aiormq.exceptions
from pamqp.commands import Queue as Methods

from protoflow.errors import TransportError
from protoflow.transports.rabbitmq.channel import FAILURES
from protoflow.transports.rabbitmq.link import Link, describe


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
            if ids is not None:
                return await self._replay(visit, await visit.find(ids), to_origin)
            replayed = 0
            while chunk := await visit.take(_CHUNK):
                replayed += await self._replay(visit, chunk, to_origin)
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

    async def _replay(self, visit: _Visit, taken: Sequence[_Taken], to_origin: bool) -> int:
        messages = [self._renewed(each.letter.message, to_origin) for each in taken]
        results = await self._publisher.submit(messages)
        visit.ack([each for each, error in zip(taken, results, strict=True) if error is None])
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


async def exists(link: Link, queue: str) -> bool:
    """Whether there is a queue that anybody may send to; sends it an empty message.

    Declaring it passively would say the same, but a queue that another connection has for
    itself would leave an error in the server's log each time.
    """
    channel = await link.channel()
    try:
        return await channel.send_empty(queue)
    finally:
        await channel.leave()
