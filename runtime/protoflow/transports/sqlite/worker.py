"""The thread that owns the connection.

Jobs are collected on the event loop; while the thread works on one lot, the next gathers,
and each lot is one transaction (group commit). Going to the thread and back costs about
as much as twenty messages, so it happens once a lot, never once a message.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from protoflow.errors import ConnectionFailedError, ProtoflowError, TransportError

T = TypeVar("T")


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
        write_timeout: float,
        rolled_back: Callable[[], None],
    ) -> None:
        #: Held while the thread, or a transaction of the application, writes.
        self.writing = threading.Lock()
        self.problem: str | None = None
        self._connect = connect
        self._write_timeout = write_timeout
        self._rolled_back = rolled_back
        self._loop = asyncio.get_running_loop()
        self._lots: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self._pending: list[Job] = []
        self._open: dict[object, Job] = {}
        self._busy = False
        self._scheduled = False
        self._stopped = False
        self._idle: asyncio.Future[None] | None = None
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="protoflow-sqlite", daemon=True)

    async def start(self) -> None:
        """Connects. Raises ConnectionFailedError."""
        self._thread.start()
        await self._opened

    async def stop(self) -> None:
        """Finishes what was added, and disconnects."""
        while self._pending or self._busy:
            self._idle = self._loop.create_future()
            await self._idle
        self._stopped = True
        self._lots.put(None)
        closed = self._loop.run_in_executor(None, self._thread.join)
        await asyncio.shield(closed)

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
            if isinstance(result, ProtoflowError):
                job.failed(result)
            else:
                job.done(result)
        if self._idle is not None and not self._busy and not self._idle.done():
            self._idle.set_result(None)

    # What follows runs in the thread.

    def _run(self) -> None:
        try:
            connection = self._connect()
        except Exception as error:
            self._tell(self._open_failed, error)
            return
        self._tell(self._opened.set_result, None)
        while (lot := self._lots.get()) is not None:
            results = self._execute(connection, lot)
            self._tell(self._finished, lot, results)
        connection.close()

    def _open_failed(self, error: Exception) -> None:
        failure = (
            error
            if isinstance(error, ProtoflowError)
            else ConnectionFailedError(f"cannot open the database: {error}")
        )
        failure.__cause__ = None if failure is error else error
        self._opened.set_exception(failure)

    def _tell(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:
            self._lots.put(None)  # the loop was closed before the transport

    def _execute(self, connection: sqlite3.Connection, lot: Sequence[Job]) -> list[Any]:
        try:
            results = self._transact(connection, lot)
            self.problem = None
        except Exception as error:
            if len(lot) > 1 and not _is_busy(error):
                # One of them may be to blame: each by itself, lest it take the others along.
                return [self._execute(connection, (job,))[0] for job in lot]
            failure = TransportError(explain(error))
            failure.__cause__ = error
            self.problem = str(failure)
            return [failure] * len(lot)
        return results

    def _transact(self, connection: sqlite3.Connection, lot: Sequence[Job]) -> list[Any]:
        if not any(job.writes for job in lot):
            return [_attempt(job, connection) for job in lot]
        if not self.writing.acquire(timeout=self._write_timeout):
            raise sqlite3.OperationalError("database is locked by a transaction of this process")
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                results = [_attempt(job, connection) for job in lot]
                connection.execute("COMMIT")
            except BaseException:
                self._rolled_back()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        finally:
            self.writing.release()
        return results


def _attempt(job: Job, connection: sqlite3.Connection) -> Any:
    try:
        return job.run(connection)
    except ProtoflowError as error:
        return error


def _is_busy(error: Exception) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def explain(error: Exception) -> str:
    """What is wrong with the database, and what mends it."""
    if _is_busy(error):
        return f"{error}: another transaction writes for longer than busy_timeout"
    return f"the database failed: {error}"
