"""The interface to a user's connection that the runtime needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

#: A row in the form of the user's row factory.
Row: TypeAlias = Sequence[Any]
Dialect: TypeAlias = Literal["postgresql", "sqlite"]


class Insertion(NamedTuple):
    """A statement that writes messages, and its parameters, once or several times."""

    statement: str
    rows: Sequence[Row]


class _Connection(Protocol):
    @property
    def dialect(self) -> Dialect:
        """The kind of database."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, as far as the client knows without asking the server. It
        is also False if the connection was closed or returned to its pool."""
        ...

    @property
    def autocommits(self) -> bool:
        """Whether a statement would be committed immediately, outside a transaction of the user."""
        ...


class DatabaseConnection(_Connection, Protocol):
    """A connection that belongs to the user, for code with an event loop.

    Errors of the driver are not changed, so the user's retries of serialization failures work.
    """

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """Runs a statement with parameters written as `$1`, and returns its rows. There are no rows
        without RETURNING or SELECT."""
        ...

    async def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Runs a statement for each row of parameters."""
        ...


class SyncDatabaseConnection(_Connection, Protocol):
    """The same without an event loop; it is used only in the calling thread."""

    def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """Runs a statement with parameters written as `$1`, and returns its rows."""
        ...

    def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Runs a statement for each row of parameters."""
        ...
