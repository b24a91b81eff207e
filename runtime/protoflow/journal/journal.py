"""The journal of a process: entries wait in memory, and a thread writes them in batches."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final

from protoflow.journal.entries import GAP, Event
from protoflow.journal.file import JournalError
from protoflow.journal.writer import ACTION, EVENT, MINUTE, JournalWriter, Row

#: The current actor, a role and an address, for records that are made in inner code.
acting: ContextVar[str] = ContextVar("acting", default="")

_log = logging.getLogger("protoflow.journal")

#: Seconds between two batches.
_INTERVAL: Final = 0.5
#: At most this many entries wait; further ones are lost and counted.
_WAITING: Final = 20_000
#: The number of entries in one transaction.
_BATCH: Final = 2_000
#: Seconds before a failed file is tried again.
_PAUSE: Final = 10.0
#: Seconds without writes after which the file is checked for old entries.
_EXPIRING: Final = 600.0
#: Seconds that `close` waits for the last batch.
_CLOSING: Final = 5.0
#: At most this many ids of one action become events of their messages.
_IDS: Final = 1_000


class Journal:
    """Records the events of messages. Errors of the file are logged and never raised.

    Args:
        path: the SQLite file; created if missing, readable for this user only.
        successes: whether publishes, receipts and successes are also recorded.
        max_bytes: the largest size of the file; the oldest entries are deleted.
        actor: the recorded operator of actions.
        now: the time in seconds since the epoch.

    Attributes:
        path: the file.
        successes: as given.
        actor: as given.
        problem: why nothing is written at the moment; None if there is no problem.
    """

    def __init__(
        self,
        path: str,
        *,
        successes: bool = False,
        max_bytes: int = 64 * 1024 * 1024,
        actor: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self.path = path
        self.successes = successes
        self.problem: str | None = None
        self.actor = actor
        self._now = now
        self._rows: deque[Row] = deque()
        self._writer = JournalWriter(path, max_bytes)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._refused = 0  # changed by `_add`
        self._dropped = 0  # changed by the thread
        self._noted = 0  # the part of `lost` that is already in the file
        self._retry_at = self._expire_at = 0.0

    def open(self) -> None:
        """Starts writing."""
        self._thread = threading.Thread(target=self._run, name="protoflow-journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes waiting entries, for a few seconds at most. It is idempotent."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._stopping.set()
            thread.join(_CLOSING)

    def __enter__(self) -> Journal:
        self.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def record_event(
        self,
        event: Event,
        id: str,
        *,
        handler: str = "",
        topic: str = "",
        group: str = "",
        attempt: int = 0,
        type: str = "",
        error: str = "",
        detail: str = "",
        cause: str = "",
    ) -> None:
        """Records an event of a message; see `MessageEvent`."""
        self._add(
            EVENT,
            (
                *(self._now(), id, str(event), handler, topic, group, attempt, type, error),
                *(detail, cause),
            ),
        )

    def record_minute(self, minute: int, handler: str, counts: Sequence[float]) -> None:
        """Adds counters, runs and their seconds to the current minute of a handler."""
        self._add(MINUTE, (minute, handler, *counts))

    def record_action(
        self,
        action: str,
        target: str,
        *,
        ids: Sequence[str] = (),
        count: int | None = None,
        detail: str = "",
    ) -> None:
        """Records an action of an operator.

        Args:
            action: replay, purge, pause, resume, drain.
            target: a dead-letter topic, a subscription or a handler.
            ids: the replayed or purged messages; each of the first thousand gets an event.
            count: the number of affected messages; by default the number of ids.
            detail: further details of the action.
        """
        count = len(ids) if count is None else count
        detail = "; ".join(text for text in (acting.get(), detail) if text)
        self._add(ACTION, (self._now(), action, target, count, self.actor, detail))
        event = {"replay": Event.REPLAYED, "purge": Event.PURGED}.get(action)
        if event is not None:
            by = f"by {self.actor}" if self.actor else ""
            for id in ids[:_IDS]:
                self.record_event(event, id, topic=target, detail=f"{by} {detail}".strip())

    @property
    def lost(self) -> int:
        """The number of lost entries."""
        return self._refused + self._dropped

    def _add(self, kind: int, values: tuple[Any, ...]) -> None:
        if len(self._rows) >= _WAITING:
            self._refused += 1
        else:
            self._rows.append((kind, values))

    # Runs in the thread.

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            self._write_all()
        self._retry_at = 0.0
        self._write_all()
        self._dropped += len(self._rows)
        self._writer.close()
        if self.lost:
            _log.warning("the journal lost entries", extra={"file": self.path, "lost": self.lost})

    def _write_all(self) -> None:
        while time.monotonic() >= self._retry_at:
            idle = not self._rows
            # A process without events creates no file.
            if idle and not (self._writer.is_open and time.monotonic() >= self._expire_at):
                return
            batch = [self._rows.popleft() for _ in range(min(_BATCH, len(self._rows)))]
            self._write(batch)
            if idle:
                return

    def _write(self, batch: list[Row]) -> None:
        lost = self.lost
        gap = (ACTION, (self._now(), GAP, "journal", lost - self._noted, self.actor, ""))
        try:
            self._writer.write([*batch, gap] if lost > self._noted else batch, self._now())
        except (JournalError, sqlite3.OperationalError, OSError) as error:
            self._rows.extendleft(reversed(batch))
            self._failed(str(error))
        # a repetition cannot help: the service and other processes continue
        except Exception as error:
            self._dropped += len(batch)
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self._noted = lost
            self._expire_at = time.monotonic() + _EXPIRING
            self._works()

    def _failed(self, problem: str) -> None:
        self._writer.close()
        self._retry_at = time.monotonic() + _PAUSE
        if self.problem is None:
            _log.warning("the journal cannot be written: %s", problem, extra={"file": self.path})
        self.problem = problem

    def _works(self) -> None:
        if self.problem is not None:
            self.problem = None
            _log.info("the journal is written again", extra={"file": self.path, "lost": self.lost})
