"""Interprets the errors of databases for a run. No driver is imported."""

from __future__ import annotations

import sqlite3
from typing import Final

from protoflow.outcomes import DeadLetter

#: Serialization failure and deadlock: the same transaction may succeed immediately.
_CONFLICTS: Final = frozenset({"40001", "40P01"})
#: Another transaction holds a lock: lock_timeout, serialization failure, deadlock.
_BUSY: Final = _CONFLICTS | {"55P03"}
#: The connection broke, or the server ended it: the result of the statement is unknown.
_UNKNOWN: Final = ("08", "57P")


class TransactionEnded(DeadLetter):
    """The handler ended the runtime's own transaction: a retry cannot undo that."""

    def __init__(self, handler: str) -> None:
        super().__init__(
            f"{handler}: the handler committed or rolled back the transaction of the inbox; "
            "leave this to the runtime, and use a savepoint for statements that may fail"
        )


class ConnectionLost(Exception):  # noqa: N818  the name states what happened
    """The connection of the transaction broke while the handler ran."""

    def __init__(self) -> None:
        super().__init__("the connection to the database was lost while the handler ran")


def not_open(handler: str, *, lost: bool) -> Exception:
    """Returns why a transaction is not open after its handler has returned."""
    return ConnectionLost() if lost else TransactionEnded(handler)


class StatementFailed(Exception):  # noqa: N818  the name states what happened
    """A statement and with it the transaction failed, but the handler continued. PostgreSQL would
    answer COMMIT with ROLLBACK, and drivers report that as a success."""

    def __init__(self) -> None:
        super().__init__(
            "a statement of the handler failed, so its transaction cannot be committed; do not "
            "catch the error, or use a savepoint for statements that may fail"
        )


def is_conflict(error: BaseException) -> bool:
    """Whether the transaction lost a conflict, so that it may succeed if repeated immediately."""
    return sqlstate(error) in _CONFLICTS


def is_busy(error: BaseException) -> bool:
    """Whether another transaction was the cause: the database itself works."""
    return sqlstate(error) in _BUSY


def is_refused(error: BaseException) -> bool:
    """Whether the database answered COMMIT with an error, so that nothing was committed."""
    if isinstance(error, sqlite3.Error):
        return True
    state = sqlstate(error)
    return state is not None and not state.startswith(_UNKNOWN)


def sqlstate(error: BaseException) -> str | None:
    """Returns the code of a PostgreSQL error, for every driver."""
    seen: BaseException | None = error
    for _ in range(4):
        if seen is None:
            return None
        state = getattr(seen, "sqlstate", None) or getattr(seen, "pgcode", None)
        if isinstance(state, str):
            return state
        # SQLAlchemy wraps the error of its driver
        seen = getattr(seen, "orig", None) or seen.__cause__
    return None
