"""The thread that owns the connection.

Jobs are collected on the event loop. While the thread works on one batch, the next one gathers, and
each batch is one transaction (group commit). A round trip to the thread costs about as much as
twenty messages, so it is made once for each batch and not for each message.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from protoflow.error_codes import FILE_PLACE, NOT_OPEN
from protoflow.errors import ConnectionFailedError, ProtoflowError, TransportError

T = TypeVar("T")

#: Seconds after a failure before a test write checks whether it is over.
_PROBE_AFTER = 1.0
_log = logging.getLogger("protoflow.transports.sqlite")


class Job(Protocol):
    """A piece of work for the thread.

    `run` may be called again after a rollback. A ProtoflowError that it raises belongs to this job,
    which must not have written before. Any other error rolls back.
    """

    writes: bool

    def run(self, connection: sqlite3.Connection, /) -> Any:
        """Runs in the thread, in a transaction if it writes."""

    def done(self, result: Any, /) -> None:
        """Is called on the event loop after the commit."""

    def failed(self, error: ProtoflowError, /) -> None:
        """Is called on the event loop after a failure."""


class Call:
    """A function as a job; its result goes into a future."""

    def __init__(self, function: Callable[[sqlite3.Connection], Any], *, writes: bool) -> None:
        self.writes = writes
        self.run = function
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def done(self, result: Any) -> None:
        """Resolves the future."""
        if not self.future.done():
            self.future.set_result(result)

    def failed(self, error: ProtoflowError) -> None:
        """Fails the future."""
        if not self.future.done():
            self.future.set_exception(error)


class Worker:
    """Runs jobs in the order in which they were added."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        check: Callable[[], None],
        write_timeout: float,
        rolled_back: Callable[[], None],
    ) -> None:
        #: Held while the thread or a transaction of the application writes.
        self.writing = threading.Lock()
        #: Why the file could not be written or read. Only a successful write ends it: a readable
        #: file may still be locked or full.
        self.problem: str | None = None
        self._check = check
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._write_timeout = write_timeout
        self._rolled_back = rolled_back
        self._loop = asyncio.get_running_loop()
        self._lots: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._pending: list[Job] = []
        self._open: dict[object, Job] = {}
        self._busy = False
        self._scheduled = False
        self._stopped = False
        self._hurried = False
        self._probing = False
        self._idle: asyncio.Future[None] | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="protoflow-sqlite", daemon=True)

    async def start(self) -> None:
        """Connects. Raises ConnectionFailedError."""
        self._thread.start()
        await self._opened

    def hurry(self) -> None:
        """Prepares for the end: once a write has failed, no job waits for the file any more."""
        self._hurried = True

    async def stop(self) -> None:
        """Finishes the added jobs, and disconnects. If it is cancelled, nothing stays on the loop;
        the thread ends after its current job."""
        try:
            while self._pending or self._busy:
                self._idle = self._loop.create_future()
                await self._idle
        finally:
            self._stopped = True
            self._lots.put(None)
            self._hand_over()
        await self._closed

    def pending(self, name: object) -> Job | None:
        """Returns the job with this name if the thread has not taken it, so that it can grow."""
        return self._open.get(name)

    def add(self, job: Job, name: object = None) -> None:
        """Adds a job; jobs that are added in one turn of the loop run together."""
        self._pending.append(job)
        if name is not None:
            self._open[name] = job
        if not self._scheduled and not self._busy:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    async def call(self, function: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        """Runs a function in the thread. Raises its ProtoflowError, or TransportError."""
        job = Call(function, writes=writes)
        self.add(job)
        result: T = await job.future
        return result

    def _hand_over(self) -> None:
        self._scheduled = False
        if self._stopped:  # a late caller must not wait for ever
            late, self._pending = self._pending, []
            self._open.clear()
            for job in late:
                job.failed(ConnectionFailedError("sqlite: the transport is closed", code=NOT_OPEN))
        elif self._pending and not self._busy:
            lot, self._pending = self._pending, []
            self._open.clear()
            self._busy = True
            self._lots.put(lot)

    def _finished(self, lot: Sequence[Job], results: Sequence[Any]) -> None:
        self._busy = False
        self._hand_over()
        for job, result in zip(lot, results, strict=True):
            try:
                if isinstance(result, ProtoflowError):
                    job.failed(result)
                else:
                    job.done(result)
            except Exception:  # a failing callback must not keep the others from their answers
                _log.exception("a job could not be answered")
        if self.problem is not None and not self._probing and not self._stopped:
            self._probing = True
            self._loop.call_later(_PROBE_AFTER, self._probe)
        if self._idle is not None and not self._busy and not self._idle.done():
            self._idle.set_result(None)

    def _probe(self) -> None:
        """Makes a test write, to check whether the file can be written again."""
        self._probing = False
        if not self._stopped and not self._hurried and self.problem is not None:
            call = Call(_write_something, writes=True)
            call.future.add_done_callback(lambda future: future.exception())
            self.add(call)

    # The methods below run in the thread.

    def _run(self) -> None:
        try:
            self._open_connection()
        except Exception as error:
            self._call_loop(self._open_failed, error)
            return
        self._call_loop(self._opened.set_result, None)
        while (lot := self._lots.get()) is not None:
            results = self._execute(lot)
            self._call_loop(self._finished, lot, results)
        if self._connection is not None:
            self._connection.close()
        self._call_loop(self._was_closed)

    def _open_connection(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _was_closed(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)

    def _open_failed(self, error: Exception) -> None:
        failure = (
            error
            if isinstance(error, ProtoflowError)
            else ConnectionFailedError(f"cannot open the database: {error}", code=FILE_PLACE)
        )
        failure.__cause__ = None if failure is error else error
        self._opened.set_exception(failure)

    def _call_loop(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            self._lots.put(None)  # the loop was closed before the transport

    def _execute(self, lot: Sequence[Job]) -> list[Any]:
        writes = any(job.writes for job in lot)
        try:
            connection = self._open_connection()
            self._check()
            if self._hurried and writes and self.problem is not None:
                raise TransportError(self.problem)
            if writes:
                results = self._transact(connection, lot)
            else:
                results = [_attempt(job, connection) for job in lot]
            if writes:
                self.problem = None
        except Exception as error:
            if len(lot) > 1 and not isinstance(error, TransportError) and not _is_busy(error):
                # One job may be the cause, so each runs separately and the others do not fail with
                # it.
                return [self._execute((job,))[0] for job in lot]
            failure = error if isinstance(error, TransportError) else TransportError(explain(error))
            failure.__cause__ = None if failure is error else error
            self.problem = str(failure)
            return [failure] * len(lot)
        return results

    def _transact(self, connection: sqlite3.Connection, lot: Sequence[Job]) -> list[Any]:
        if not self.writing.acquire(timeout=self._write_timeout):
            raise sqlite3.OperationalError("database is locked by a transaction of this process")
        try:
            try:
                connection.execute("BEGIN IMMEDIATE")
                results = [_attempt(job, connection) for job in lot]
                self._check()
                connection.execute("COMMIT")
            except BaseException:
                self._rolled_back()
                self._roll_back(connection)
                raise
        finally:
            self.writing.release()
        return results

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        """Ends the transaction in any case: an open transaction would hold the lock on the file,
        and all later jobs would fail."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection = None  # the next batch opens another
            with suppress(sqlite3.Error):
                connection.rollback()
            connection.close()  # closing also rolls back, unless a cursor keeps it open


def _write_something(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE protoflow_schema SET version = version")


def _attempt(job: Job, connection: sqlite3.Connection) -> Any:
    try:
        return job.run(connection)
    except ProtoflowError as error:
        return error


def _is_busy(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def explain(error: Exception) -> str:
    """Describes the problem of the database, and its fix."""
    if _is_busy(error):
        return f"{error}: another transaction writes for longer than busy_timeout"
    return f"the database failed: {error}"
