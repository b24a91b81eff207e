"""What the runtime needs of a user's connection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

#: A row, whatever row factory the user has set.
Row: TypeAlias = Sequence[Any]
Dialect: TypeAlias = Literal["postgresql", "sqlite"]


class Insertion(NamedTuple):
    """What writes messages: a statement, and its parameters, once or several times."""

    statement: str
    rows: Sequence[Row]


class _Connection(Protocol):
    @property
    def dialect(self) -> Dialect:
        """The database behind it."""
        ...

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, as the client knows without asking the server. False,
        too, if the connection was closed or returned to its pool."""
        ...

    @property
    def autocommits(self) -> bool:
        """Whether a statement would be committed at once, in no transaction of the user's."""
        ...


class DatabaseConnection(_Connection, Protocol):
    """A connection that belongs to the user, for code with an event loop.

    Errors of the driver pass unchanged, so the user's retries of serialization failures work.
    """

    async def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """Runs a statement, parameters written as `$1`, and returns its rows; none without
        RETURNING or SELECT."""
        ...

    async def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Runs a statement for each row of parameters."""
        ...


class SyncDatabaseConnection(_Connection, Protocol):
    """The same without an event loop; used only in the thread that calls."""

    def fetch(self, statement: str, *values: object) -> Sequence[Row]:
        """Runs a statement, parameters written as `$1`, and returns its rows."""
        ...

    def execute_many(self, statement: str, rows: Sequence[Row]) -> None:
        """Runs a statement for each row of parameters."""
        ...
