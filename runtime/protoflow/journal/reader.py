"""Reads a journal, even while services write to it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from protoflow.journal.entries import (
    ACTION_COLUMNS,
    EVENT_COLUMNS,
    GAP,
    MINUTE_COLUMNS,
    Event,
    HandlerMinute,
    MessageEvent,
    OperatorAction,
)
from protoflow.journal.file import JournalError, open_to_read, plain

_EVENTS = f"SELECT {', '.join(EVENT_COLUMNS)} FROM journal_events WHERE "  # noqa: S608
_OF_MESSAGE = f"{_EVENTS} id = ? ORDER BY time, sequence LIMIT ?"
_CAUSED = (
    f"{_EVENTS} cause = ? AND cause <> '' AND event = 'published' ORDER BY time, sequence LIMIT ?"
)
_MINUTES = (
    f"SELECT minute, handler, {', '.join(MINUTE_COLUMNS)} FROM journal_minutes "  # noqa: S608
    "WHERE minute >= ? AND minute < ? AND (?3 IS NULL OR handler = ?3) ORDER BY minute, handler"
)
_ACTIONS = (
    f"SELECT {', '.join(ACTION_COLUMNS)} FROM journal_actions "  # noqa: S608
    "WHERE time >= ? AND time < ? AND action <> ? ORDER BY time DESC, sequence DESC LIMIT ?"
)
_LOST = "SELECT coalesce(sum(count), 0) FROM journal_actions WHERE action = ?"
_OLDEST = (
    "SELECT min(time) FROM (SELECT time FROM journal_events ORDER BY sequence LIMIT 1)"
    "UNION ALL SELECT min(minute) FROM journal_minutes UNION ALL SELECT min(time) FROM "
    "journal_actions"
)
_LATEST = 1 << 60


class JournalReader:
    """Reads the history of messages, handlers and operators from a journal.

    Args:
        path: the file.

    Raises:
        JournalError: there is no journal.
    """

    def __init__(self, path: str) -> None:
        self._connection = open_to_read(path)

    def timeline(self, id: str, *, limit: int = 1000) -> list[MessageEvent]:
        """Returns the events of a message, the oldest first."""
        return [_event(row) for row in self._rows(_OF_MESSAGE, plain(id), limit)]

    def caused(self, id: str, *, limit: int = 1000) -> list[MessageEvent]:
        """Returns the messages that a message caused; only with `journal_successes`."""
        return [_event(row) for row in self._rows(_CAUSED, plain(id), limit)]

    def minutes(
        self, since: float = 0, until: float = _LATEST, handler: str | None = None
    ) -> list[HandlerMinute]:
        """Returns the minutes of handlers, the oldest first.

        Args:
            since: the first minute, in seconds since the epoch.
            until: the end, which is not included.
            handler: selects one handler.
        """
        return [
            HandlerMinute(
                minute=minute,
                handler=name,
                counts=dict(zip(MINUTE_COLUMNS[:-2], counts, strict=True)),
                runs=int(runs),
                seconds=float(seconds),
            )
            for minute, name, *counts, runs, seconds in self._rows(_MINUTES, since, until, handler)
        ]

    def actions(
        self, since: float = 0, until: float = _LATEST, *, limit: int = 100
    ) -> list[OperatorAction]:
        """Returns the actions of operators, the latest first."""
        return [
            OperatorAction(**dict(zip(ACTION_COLUMNS, row, strict=True)))
            for row in self._rows(_ACTIONS, since, until, GAP, limit)
        ]

    @property
    def lost(self) -> int:
        """The number of entries that the journal lost."""
        (row,) = self._rows(_LOST, GAP)
        return int(row[0])

    @property
    def since(self) -> float | None:
        """The time of the oldest entry; None if there is none."""
        times = [time for (time,) in self._rows(_OLDEST) if time is not None]
        return min(times, default=None)

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _rows(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            with contextlib.closing(self._connection.execute(query, values)) as cursor:
                yield from cursor
        except sqlite3.Error as error:
            raise JournalError(f"the journal cannot be read: {error}") from error


def _event(row: tuple[Any, ...]) -> MessageEvent:
    values = dict(zip(EVENT_COLUMNS, row, strict=True))
    values["group"] = values.pop("grp")
    values["event"] = Event(values["event"])
    return MessageEvent(**values)
