"""A transaction that the runtime opens and ends, around the user's own connection."""

from __future__ import annotations

from typing import Any, Protocol

from protoflow.database import DatabaseConnection, SyncDatabaseConnection
from protoflow.database.interface import Dialect


class Transaction(Protocol):
    """An open transaction.

    Attributes:
        connection: what the handler gets: the user's own type.
        database: the same, for statements of the runtime.
    """

    connection: Any
    database: DatabaseConnection

    @property
    def is_open(self) -> bool:
        """Whether the transaction is still the one that was opened."""
        ...

    async def prepare(self) -> None:
        """Does what must come before COMMIT, and may fail: a session writes its objects."""
        ...

    async def commit(self) -> None:
        """Commits. Raises the driver's error."""
        ...

    async def close(self) -> None:
        """Rolls back what is not committed, and gives the connection back. Raises nothing."""
        ...


class SyncTransaction(Protocol):
    """The same in a thread; see `Transaction`."""

    connection: Any
    database: SyncDatabaseConnection

    @property
    def is_open(self) -> bool:
        """Whether the transaction is still the one that was opened."""
        ...

    def commit(self) -> None:
        """Commits. Raises the driver's error."""
        ...

    def close(self) -> None:
        """Rolls back what is not committed, and gives the connection back. Raises nothing."""
        ...


class Opener(Protocol):
    """Opens transactions for handlers on the event loop."""

    dialect: Dialect

    async def begin(self) -> Transaction:
        """Opens a transaction. Raises the driver's error."""
        ...

    async def close(self) -> None:
        """Closes what is the inbox's own; the user's pool or engine stays open."""
        ...


class SyncOpener(Protocol):
    """Opens transactions for handlers in threads."""

    dialect: Dialect

    def begin_sync(self) -> SyncTransaction:
        """Opens a transaction in this thread. Raises the driver's error."""
        ...

    async def close(self) -> None:
        """Closes what is the inbox's own."""
        ...
