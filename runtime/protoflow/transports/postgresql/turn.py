"""The turn to write what a member has finished: one transaction at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from protoflow.errors import TransportError
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.doubt import Doubt


class Turn:
    """A transaction writes what this process knows, and that changes with every commit: so a
    transaction takes the turn before it writes, and leaves it once its commit is noted."""

    def __init__(self, database: Database) -> None:
        self._lock = asyncio.Lock()
        self._doubt = Doubt(database)

    async def resolve(self) -> None:
        """Finds out what came of a commit that was not answered. Raises TransportError."""
        await self._doubt.resolve()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """The turn; to be entered with a connection, lest others wait for one in their turn.

        Raises:
            TransportError: it is unknown what came of the transaction before.
        """
        async with self._lock:
            if self._doubt.pending:
                raise TransportError("PostgreSQL: a commit before this one was not answered")
            yield

    def unanswered(self, xid: str, committed: Callable[[], None]) -> None:
        """The commit of this turn may have happened; if so, `committed` is called later."""
        if xid:
            self._doubt.set(xid, committed)
