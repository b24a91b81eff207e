"""Transactions of which it is unknown whether they were committed."""

from __future__ import annotations

from collections.abc import Callable

from protoflow.errors import TransportError
from protoflow.transports.postgresql.database import Database

_STATUS = "SELECT pg_xact_status($1::text::xid8)"


class Doubt:
    """The last transaction, if its commit was not answered."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: tuple[str, Callable[[], None]] | None = None

    @property
    def pending(self) -> bool:
        """Whether a commit got no answer."""
        return self._pending is not None

    def set(self, xid: str, committed: Callable[[], None]) -> None:
        """The transaction may be committed; if so, `committed` is called by `resolve`."""
        self._pending = xid, committed

    def clear(self) -> None:
        """Whatever came of it concerns nobody any more."""
        self._pending = None

    async def resolve(self) -> None:
        """Finds out what came of the transaction. Raises TransportError."""
        if self._pending is None:
            return
        pending = self._pending
        ((status,),) = await self._database.fetch(_STATUS, pending[0])
        if status == "in progress":
            raise TransportError("PostgreSQL: a transaction is still being committed or undone")
        if self._pending is pending:
            self._pending = None
            if status == "committed":
                pending[1]()
