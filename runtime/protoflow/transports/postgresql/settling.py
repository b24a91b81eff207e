"""Settling: whatever is settled while a transaction runs goes into the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

from protoflow.errors import PublishRefusedError, TransportError
from protoflow.message import Delivery, Settlement, SettleResult
from protoflow.transports.postgresql.database import Connection, Database
from protoflow.transports.postgresql.holdings import Holdings
from protoflow.transports.postgresql.publishing import Limits, publish, unsubscribed
from protoflow.transports.postgresql.rows import Columns

Results = Sequence[SettleResult]


class Written(NamedTuple):
    """A transaction with settlements, perhaps committed."""

    xid: str
    settlements: Sequence[Settlement]
    results: Results
    committed: Callable[[], None]
    topics: Collection[str]


class Settler:
    """Settles what one member of a group holds.

    Args:
        published: gets the topics of outputs.
    """

    def __init__(
        self,
        database: Database,
        limits: Limits,
        holdings: Holdings,
        published: Callable[[Collection[str]], None],
    ) -> None:
        self._database = database
        self._limits = limits
        self._holdings = holdings
        self._published = published
        self._waiting: list[tuple[asyncio.Future[Results], Sequence[Settlement]]] = []
        self._task: asyncio.Task[None] | None = None
        #: Committed, but not reported: what is repeated is answered from here.
        self._unreported: dict[Delivery, SettleResult] = {}

    def settle(self, settlements: Sequence[Settlement]) -> asyncio.Future[Results]:
        """See `QueueSource.settle`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Results] = loop.create_future()
        self._holdings.begin(settlements)
        self._waiting.append((future, settlements))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return future

    async def flush(self) -> None:
        """Waits until everything has a result."""
        while self._task is not None:
            await asyncio.wait([self._task])

    async def write(
        self, connection: Connection, settlements: Sequence[Settlement], topics: dict[str, int]
    ) -> Written:
        """Settles in a transaction, in its turn; `topics` are those of the outputs that can be
        stored."""
        wanted = {each.delivery for each in settlements}
        wanted.update(other for each in settlements for other in each.others)
        held, xid = await self._holdings.lock(connection, wanted)
        results, columns, chosen = [], Columns(), []
        for settlement in settlements:
            if settlement.delivery not in held or not held.issuperset(settlement.others):
                results.append(SettleResult.LOST)
            elif not self._add(columns, settlement, topics):
                results.append(SettleResult.REFUSED)
            else:
                results.append(SettleResult.DONE)
                chosen.append(settlement)
        committed = await self._holdings.write(connection, chosen)
        if len(columns):
            await publish(self._database, connection, columns, topics)
        return Written(xid, settlements, results, committed, {*columns.topics})

    def unanswered(self, written: Written) -> None:
        """The commit of what was written was not answered."""
        self._holdings.turn.unanswered(written.xid, partial(self._committed, written))

    async def output_topics(self, settlements: Sequence[Settlement]) -> dict[str, int]:
        """Returns the topics of outputs that can be stored."""
        names = {output.topic for each in settlements for output in each.outputs}
        if not names:
            return {}
        ids = await self._database.topic_ids(names)
        refused: Collection[str] = ()
        if self._database.settings.require_subscriber:
            refused = await unsubscribed(self._database, names)
        return {name: ids[name] for name in names if name not in refused}

    def _add(self, columns: Columns, settlement: Settlement, topics: dict[str, int]) -> bool:
        if not settlement.outputs:
            return True
        own = Columns()
        try:
            for output in settlement.outputs:
                own.add(output, self._limits.bound(output.topic))
        except PublishRefusedError:
            return False
        if not topics.keys() >= {*own.topics}:
            return False
        columns.extend(own)
        return True

    async def _run(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)
                waiting, self._waiting = self._waiting, []
                settlements = [each for _, some in waiting for each in some]
                try:
                    results: Results = await self._settle(settlements)
                except BaseException as error:
                    for future, _ in waiting:
                        if not future.done():
                            future.set_exception(_unknown(error))
                    if not isinstance(error, Exception):
                        raise
                else:
                    first = 0
                    for future, some in waiting:
                        if not future.done():
                            future.set_result(results[first : first + len(some)])
                        first += len(some)
                finally:
                    self._holdings.end(settlements)
        finally:
            self._task = None

    async def _settle(self, settlements: Sequence[Settlement]) -> Results:
        """Settles in one transaction. Raises TransportError if it is unknown what came of it."""
        await self._holdings.turn.resolve()
        known = self._unreported
        left = [each for each in settlements if each.delivery not in known]
        if left:
            await self._write(left)
        return [known.pop(each.delivery) for each in settlements]

    async def _write(self, settlements: Sequence[Settlement]) -> None:
        topics = await self.output_topics(settlements)
        written: Written | None = None
        async with AsyncExitStack() as turn:
            try:
                async with self._database.transaction(relaxed=not topics) as connection:
                    await turn.enter_async_context(self._holdings.turn.taken())
                    written = await self.write(connection, settlements, topics)
            except BaseException:
                if written is not None:
                    self.unanswered(written)
                raise
            self._committed(written)

    def _committed(self, written: Written) -> None:
        written.committed()
        for settlement, result in zip(written.settlements, written.results, strict=True):
            self._unreported[settlement.delivery] = result
        if written.topics:
            self._published(written.topics)


def _unknown(error: BaseException) -> TransportError:
    """What stands for an unknown result."""
    if isinstance(error, TransportError):
        return error
    unknown = TransportError(f"PostgreSQL: settling failed: {error!r}")
    unknown.__cause__ = error
    return unknown
