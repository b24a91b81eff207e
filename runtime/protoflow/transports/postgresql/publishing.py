"""Publishing: everything that is submitted while a transaction runs goes into the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence

from protoflow.database.interface import Insertion
from protoflow.error_codes import NO_SUBSCRIBER
from protoflow.errors import PublishError, PublishRefusedError, TransportError
from protoflow.message import Message
from protoflow.transport.kit.submission import Submission
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.rows import Columns

_PUBLISH = (
    "SELECT {s}.publish($1::int[], $2::int[], $3::bytea[], $4::bytea[], $5::text[], $6::bytea[], "
    "$7::float8[])"
)
#: One transaction takes at most so many messages, and so many bytes.
_MOST, _MOST_BYTES = 1000, 16 * 1024 * 1024
#: What a dead letter may have more than the message: the reason, the origin, the attempts.
_HEADROOM = 256 * 1024
_SUBSCRIBED = """
SELECT t.name FROM {s}.topics t WHERE t.name = ANY ($1::text[])
  AND (t.dead OR EXISTS (SELECT 1 FROM {s}.groups g WHERE g.topic = t.id))
"""


class Limits:
    """How large messages may be; dead letters may be larger by what is added to them."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.dead_letter_topics: frozenset[str] = frozenset()

    def bound(self, topic: str) -> int:
        """Returns the bound for a topic."""
        return self.most + _HEADROOM if topic in self.dead_letter_topics else self.most


async def publish(
    database: Database, connection: Connection, columns: Columns, topics: dict[str, int]
) -> None:
    """Publishes messages in a transaction."""
    await connection.execute(database.sql(_PUBLISH), *columns.values(topics))


async def insertion(database: Database, limits: Limits, messages: Sequence[Message]) -> Insertion:
    """Returns what publishes messages in a transaction of the application."""
    columns = Columns()
    for message in messages:
        columns.add(message, limits.bound(message.topic))
    topics = {*columns.topics}
    if database.settings.require_subscriber and (missing := await unsubscribed(database, topics)):
        raise PublishError(
            f"no group consumes {', '.join(sorted(missing))}, and require_subscriber is set",
            code=NO_SUBSCRIBER,
        )
    values = columns.values(await database.topic_ids(topics))
    return Insertion(database.sql(_PUBLISH), [values] if messages else [])


async def unsubscribed(database: Database, topics: Collection[str]) -> set[str]:
    """Returns those of the topics that no group consumes and that are no dead-letter topics."""
    found = await database.fetch(_SUBSCRIBED, [*topics])
    return {*topics} - {name for (name,) in found}


class Publisher:
    """Publishes in the order of the calls, one transaction after another.

    Args:
        published: called with the topics of the published messages.
    """

    def __init__(
        self, database: Database, limits: Limits, published: Callable[[Collection[str]], None]
    ) -> None:
        self._database = database
        self._limits = limits
        self._published = published
        self._waiting: list[tuple[Submission, int, Message]] = []
        self._task: asyncio.Task[None] | None = None

    def submit(self, messages: Sequence[Message]) -> asyncio.Future[Sequence[PublishError | None]]:
        """See `Transport.submit`."""
        submission = Submission(len(messages))
        self._waiting += [(submission, index, each) for index, each in enumerate(messages)]
        if self._waiting and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
        return submission.future

    async def close(self) -> None:
        """Waits until everything has a result."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        await asyncio.sleep(0)  # what is submitted in the same turn of the loop goes along
        try:
            while self._waiting:
                await self._publish_some()
        except BaseException as error:
            left, self._waiting = self._waiting, []
            failure = TransportError(f"publishing failed: {error!r}")
            self._fail([(submission, index) for submission, index, _ in left], failure)
            if not isinstance(error, Exception):
                raise
        finally:
            self._task = None

    async def _publish_some(self) -> None:
        columns, sent = Columns(), 0
        chosen: list[tuple[Submission, int]] = []
        for submission, index, message in self._waiting:
            if len(columns) >= _MOST or columns.size >= _MOST_BYTES:
                break
            sent += 1
            try:
                columns.add(message, self._limits.bound(message.topic))
                chosen.append((submission, index))
            except PublishRefusedError as error:
                submission.done(index, error)
        del self._waiting[:sent]
        if not chosen:
            return
        try:
            refused = await self._write(columns)
        except TransportError as error:
            self._fail(chosen, error)
        except BaseException as error:
            self._fail(chosen, TransportError(f"publishing failed: {error!r}"))
            if not isinstance(error, Exception):
                raise
        else:
            for (submission, index), topic in zip(chosen, columns.topics, strict=True):
                submission.done(index, refused.get(topic))
            self._published({*columns.topics} - refused.keys())

    async def _write(self, columns: Columns) -> dict[str, PublishError]:
        database = self._database
        refused: dict[str, PublishError] = {}
        if database.settings.require_subscriber:
            refused = {
                topic: PublishError(
                    f"no group consumes {topic}, and require_subscriber is set", code=NO_SUBSCRIBER
                )
                for topic in await unsubscribed(database, {*columns.topics})
            }
        kept = columns.without(refused) if refused else columns
        if len(kept):
            topics = await database.topic_ids(kept.topics)
            async with database.transaction() as connection:
                await publish(database, connection, kept, topics)
        return refused

    def _fail(self, chosen: Sequence[tuple[Submission, int]], error: TransportError) -> None:
        for submission, index in chosen:
            failure = PublishError(str(error))
            failure.__cause__ = error
            submission.done(index, failure)
