"""The thread that owns the connection.

Jobs are collected on the event loop; while the thread works on one lot, the next gathers,
and each lot is one transaction (group commit). Going to the thread and back costs about
as much as twenty messages, so it happens once a lot, never once a message.
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

from protoflow.errors import ConnectionFailedError, ProtoflowError, TransportError

T = TypeVar("T")

#: Seconds after a failure until something is written to see whether it is over.
_PROBE_AFTER = 1.0
_log = logging.getLogger("protoflow.transports.sqlite")


class Job(Protocol):
    """A piece of work for the thread.

    `run` may be called again after a rollback. A ProtoflowError that it raises is its
    own, and it must not have written before; any other error rolls back.
    """

    writes: bool

    def run(self, connection: sqlite3.Connection, /) -> Any:
        """In the thread; in a transaction if it writes."""

    def done(self, result: Any, /) -> None:
        """On the event loop."""

    def failed(self, error: ProtoflowError, /) -> None:
        """On the event loop."""


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
        #: Held while the thread, or a transaction of the application, writes.
        self.writing = threading.Lock()
        #: Why the file could not be written or read. Only what was written ends it: a file that
        #: can be read may well be locked or full.
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
        """The end is near: once the file could not be written, nothing more waits for it."""
        self._hurried = True

    async def stop(self) -> None:
        """Finishes what was added, and disconnects. Cancelled, it leaves nothing on the loop;
        the thread ends with what it is at."""
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
        """The job added under this name, if the thread has not got it yet: it may grow."""
        return self._open.get(name)

    def add(self, job: Job, name: object = None) -> None:
        """Adds a job; those added in one turn of the loop go together."""
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
        if self._stopped:  # whoever comes too late must not wait for ever
            late, self._pending = self._pending, []
            self._open.clear()
            for job in late:
                job.failed(ConnectionFailedError("sqlite: the transport is closed"))
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
            except Exception:  # one that fails keeps no other from its answer
                _log.exception("a job could not be answered")
        if self.problem is not None and not self._probing and not self._stopped:
            self._probing = True
            self._loop.call_later(_PROBE_AFTER, self._probe)
        if self._idle is not None and not self._busy and not self._idle.done():
            self._idle.set_result(None)

    def _probe(self) -> None:
        """Writes something, to see whether the file can be written again."""
        self._probing = False
        if not self._stopped and not self._hurried and self.problem is not None:
            call = Call(_write_something, writes=True)
            call.future.add_done_callback(lambda future: future.exception())
            self.add(call)

    # What follows runs in the thread.

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
            else ConnectionFailedError(f"cannot open the database: {error}")
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
                # One of them may be to blame: each by itself, lest it take the others along.
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
        """Ends the transaction whatever it takes: a connection that stayed in one would hold the
        lock on the file, and fail all that comes."""
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._connection = None  # the next lot opens another
            with suppress(sqlite3.Error):
                connection.rollback()
            connection.close()  # that rolls back, too, unless a cursor keeps it open


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
    """What is wrong with the database, and how to fix it."""
    if _is_busy(error):
        return f"{error}: another transaction writes for longer than busy_timeout"
    return f"the database failed: {error}"
