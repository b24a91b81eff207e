"""A transaction that the runtime opens and ends, around the user's own connection."""

from __future__ import annotations

from typing import Any, Protocol

from protoflow.database import DatabaseConnection, Dialect, SyncDatabaseConnection


class Transaction(Protocol):
    """An open transaction."""

    @property
    def connection(self) -> Any:
        """What the handler gets: the user's own type."""
        ...

    @property
    def database(self) -> DatabaseConnection:
        """The same connection, for statements of the runtime."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the transaction is still the one that was opened."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether it is not open because the connection is not: nobody ended it."""
        ...

    async def prepare(self) -> None:
        """Does what must come before COMMIT, and may fail: a session writes its objects. Raises,
        too, if a statement had failed: a COMMIT would roll back, and say nothing."""
        ...

    async def commit(self) -> None:
        """Commits. Raises the driver's error."""
        ...

    async def close(self) -> None:
        """Rolls back what is not committed, and gives the connection back. Raises nothing."""
        ...


class SyncTransaction(Protocol):
    """The same in a thread; see `Transaction`."""

    @property
    def connection(self) -> Any:
        """What the handler gets: the user's own type."""
        ...

    @property
    def database(self) -> SyncDatabaseConnection:
        """The same connection, for statements of the runtime."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the transaction is still the one that was opened."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether it is not open because the connection is not: nobody ended it."""
        ...

    def prepare(self) -> None:
        """Raises if a statement had failed: a COMMIT would roll back, and say nothing."""
        ...

    def commit(self) -> None:
        """Commits. Raises the driver's error."""
        ...

    def close(self) -> None:
        """Rolls back what is not committed, and gives the connection back. Raises nothing."""
        ...


class Opener(Protocol):
    """Opens transactions for handlers on the event loop."""

    @property
    def dialect(self) -> Dialect:
        """The database."""
        ...

    async def begin(self) -> Transaction:
        """Opens a transaction. Raises the driver's error."""
        ...

    async def close(self) -> None:
        """Closes what is the inbox's own; the user's pool or engine stays open."""
        ...


class SyncOpener(Protocol):
    """Opens transactions for handlers in threads."""

    @property
    def dialect(self) -> Dialect:
        """The database."""
        ...

    def begin_sync(self) -> SyncTransaction:
        """Opens a transaction in this thread. Raises the driver's error."""
        ...

    async def close(self) -> None:
        """Closes what is the inbox's own."""
        ...
