"""What an error of a database means for a run. No driver is imported."""

from __future__ import annotations

import sqlite3
from typing import Final

from protoflow.outcomes import DeadLetter

#: Serialization failure and deadlock: the same transaction may succeed at once.
_CONFLICTS: Final = frozenset({"40001", "40P01"})
#: Another transaction has what is wanted: lock_timeout, serialization failure, deadlock.
_BUSY: Final = _CONFLICTS | {"55P03"}
#: The connection broke, or the server ended it: what became of the statement is not known.
_UNKNOWN: Final = ("08", "57P")


class TransactionEnded(DeadLetter):
    """The handler ended the transaction that belongs to the runtime: no retry can undo that."""

    def __init__(self, handler: str) -> None:
        super().__init__(
            f"{handler}: the handler committed or rolled back the transaction of the inbox; "
            "leave that to the runtime, and use a savepoint for what may fail"
        )


class ConnectionLost(Exception):  # noqa: N818  a name of what happened
    """The connection of the transaction broke while the handler ran."""

    def __init__(self) -> None:
        super().__init__("the connection to the database was lost while the handler ran")


def not_open(handler: str, *, lost: bool) -> Exception:
    """Returns why a transaction is not open when its handler has returned."""
    return ConnectionLost() if lost else TransactionEnded(handler)


class StatementFailed(Exception):  # noqa: N818  a name of what happened
    """A statement failed, the transaction with it, and the handler went on. PostgreSQL would
    answer a COMMIT with ROLLBACK, and drivers report that as a success."""

    def __init__(self) -> None:
        super().__init__(
            "a statement of the handler failed, so its transaction cannot be committed; let the "
            "error pass, or use a savepoint for what may fail"
        )


def is_conflict(error: BaseException) -> bool:
    """Whether the transaction lost against another, so that it may succeed at once."""
    return sqlstate(error) in _CONFLICTS


def is_busy(error: BaseException) -> bool:
    """Whether another transaction was in the way: the database itself works."""
    return sqlstate(error) in _BUSY


def is_refused(error: BaseException) -> bool:
    """Whether the database answered a COMMIT with an error, so that nothing was committed."""
    if isinstance(error, sqlite3.Error):
        return True
    state = sqlstate(error)
    return state is not None and not state.startswith(_UNKNOWN)


def sqlstate(error: BaseException) -> str | None:
    """The code of an error of PostgreSQL, whichever driver raised it."""
    seen: BaseException | None = error
    for _ in range(4):
        if seen is None:
            return None
        state = getattr(seen, "sqlstate", None) or getattr(seen, "pgcode", None)
        if isinstance(state, str):
            return state
        seen = getattr(seen, "orig", None) or seen.__cause__  # SQLAlchemy wraps its driver's
    return None
