"""A transaction that the runtime opens and ends, on the user's own connection."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from protoflow.database import DatabaseConnection, Dialect, SyncDatabaseConnection


class Transaction(Protocol):
    """An open transaction."""

    @property
    def connection(self) -> Any:
        """The object that the handler gets: the user's own type."""
        ...

    @property
    def database(self) -> DatabaseConnection:
        """The same connection, for statements of the runtime."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the transaction that was opened is still open."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost: no code ended the transaction."""
        ...

    async def prepare(self) -> None:
        """Runs the steps before COMMIT that may fail: a session writes its objects. It also raises
        if a statement had failed, because COMMIT would then roll back without an error."""
        ...

    async def commit(self) -> None:
        """Commits. Raises the driver's error."""
        ...

    async def close(self) -> None:
        """Rolls back unless committed, and gives the connection back. It raises nothing."""
        ...


class SyncTransaction(Protocol):
    """The same in a thread; see `Transaction`."""

    @property
    def connection(self) -> Any:
        """The object that the handler gets: the user's own type."""
        ...

    @property
    def database(self) -> SyncDatabaseConnection:
        """The same connection, for statements of the runtime."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether the transaction that was opened is still open."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether the connection was lost: no code ended the transaction."""
        ...

    def prepare(self) -> None:
        """Raises if a statement had failed: COMMIT would then roll back without an error."""
        ...

    def commit(self) -> None:
        """Commits. Raises the driver's error."""
        ...

    def close(self) -> None:
        """Rolls back unless committed, and gives the connection back. It raises nothing."""
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
        """Closes the inbox's own objects; the user's pool or engine stays open."""
        ...


@runtime_checkable
class QuickOpener(Protocol):
    """Opens a transaction and executes its first statements in one round trip."""

    async def begin_with(self, statements: str) -> tuple[Transaction, bool]:
        """Opens a transaction with statements that have no parameters, the last one an INSERT.
        Returns also whether it inserted a row. Raises the driver's error: then none is open."""
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
        """Closes the inbox's own objects."""
        ...
