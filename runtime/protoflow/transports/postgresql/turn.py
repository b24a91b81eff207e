"""Lets the transactions of a member write their results one at a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from protoflow.errors import TransportError
from protoflow.transports.postgresql.database import Database
from protoflow.transports.postgresql.doubt import Doubt


class Turn:
    """A lock for transactions that write positions of a member.

    A transaction writes the state that this process knows, and each commit changes that state. So
    a transaction takes the turn before it writes, and holds it until its commit is noted.
    """

    def __init__(self, database: Database) -> None:
        self._lock = asyncio.Lock()
        self._doubt = Doubt(database)

    async def resolve(self) -> None:
        """Finds out whether a commit without an answer succeeded. Raises TransportError."""
        await self._doubt.resolve()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Holds the turn. Enter it with a connection, so that no holder waits for one.

        Raises:
            TransportError: it is unknown whether the previous transaction committed.
        """
        async with self._lock:
            if self._doubt.pending:
                raise TransportError("PostgreSQL: a commit before this one was not answered")
            yield

    def unanswered(self, xid: str, committed: Callable[[], None]) -> None:
        """Notes that a commit got no answer; `committed` is called if it succeeded."""
        if xid:
            self._doubt.set(xid, committed)
