"""Exactly-once effects for plain functions: their thread opens the transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from protoflow.context import CONNECTION, Context
from protoflow.inbox.entries import Entry
from protoflow.inbox.failures import is_refused, not_open
from protoflow.outcomes import DONE, Outcome, Skip
from protoflow.scheduling.exactly_once import ExactlyOnce, chosen_of, unknown
from protoflow.scheduling.invoke import all_outputs
from protoflow.sync_context import SyncContext

if TYPE_CHECKING:
    from protoflow.database import SyncDatabaseConnection
    from protoflow.inbox.transaction import SyncTransaction

T = TypeVar("T")


class RunCancelled(Exception):  # noqa: N818  the name states what happened
    """The run was cancelled while its thread continued, so it was not committed."""


class _Loop:
    """Access to the event loop from a thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def call(self, function: Callable[[], T]) -> T:
        """Calls a function on the loop and waits for the result."""

        async def on_loop() -> T:
            return function()

        return self.run(on_loop())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the loop and waits for the result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


class ExactlyOnceSync(ExactlyOnce):
    """Runs one handler in threads; see `ExactlyOnce`."""

    async def once(
        self, context: Context, items: Sequence[Context], entries: Sequence[Entry]
    ) -> Outcome:
        """Runs the handler in one transaction, in one thread."""
        loop = _Loop(asyncio.get_running_loop())
        # made here, because two threads could otherwise make two locks
        cancelled = context.cancelled
        future = self.threads.run(partial(self._in_thread, loop, context, items, entries))
        try:
            outcome = await asyncio.shield(future)
        except asyncio.CancelledError:
            cancelled.set()
            while not future.done():
                try:
                    await asyncio.wait([future])
                except asyncio.CancelledError:
                    continue
            # A committed run counts as done, even if it was late.
            if future.cancelled() or future.exception() or future.result() is not DONE:
                raise
            outcome = DONE
        if outcome is DONE:
            context.confirm()
        return outcome

    def _in_thread(
        self, loop: _Loop, context: Context, items: Sequence[Context], entries: Sequence[Entry]
    ) -> Outcome:
        opener = self.inbox.sync_opener
        if opener is None:
            raise TypeError("the inbox opens no transactions in threads")
        try:
            transaction = opener.begin_sync()
        except Exception as error:
            return self._postponed_from(loop, error)
        try:
            try:
                fresh = self.inbox.table.enter_sync(
                    transaction.database, self.spec.group, self.spec.name, entries,
                    self.repeated(items),
                )  # fmt: skip
            except Exception as error:
                return self._postponed_from(loop, error)
            loop.call(self.began)
            chosen = chosen_of(items, entries, fresh)
            if not chosen:
                return Skip("handled before")
            return self._handled(loop, context, chosen, transaction)
        finally:
            transaction.close()

    def _handled(
        self, loop: _Loop, context: Context, chosen: Sequence[Context],
        transaction: SyncTransaction,
    ) -> Outcome:  # fmt: skip
        for each in {context, *chosen}:
            each.values[CONNECTION] = transaction.connection
        try:
            self._call(loop, context, chosen)
            self._write_outputs(loop, context, transaction.database)
        finally:
            for each in {context, *chosen}:
                each.values.pop(CONNECTION, None)
        if not transaction.is_open:
            raise not_open(self.spec.name, lost=transaction.is_lost)
        transaction.prepare()
        if context.cancelled.is_set():
            raise RunCancelled
        try:
            self._commit_sync(transaction)
        except Exception as error:
            if is_refused(error):
                raise
            return unknown()
        return DONE

    def _commit_sync(self, transaction: SyncTransaction) -> None:
        transaction.commit()

    def _call(self, loop: _Loop, context: Context, chosen: Sequence[Context]) -> None:
        given = self.given(context, chosen)
        result = self.registration.call(given, SyncContext(context, loop.call))
        if self.registration.streams:
            size = 0
            results: Iterator[Any] = iter(result)
            try:
                for each in results:
                    size = loop.call(partial(self.keep, context, each, size))
            finally:
                if (close := getattr(results, "close", None)) is not None:
                    close()
        elif result is not None and self.spec.publication is not None:
            loop.call(partial(self.keep, context, result))

    def _write_outputs(
        self, loop: _Loop, context: Context, database: SyncDatabaseConnection
    ) -> None:
        if not all_outputs(context):
            return
        messages = loop.call(partial(self.ready_outputs, context))
        statement, rows = loop.run(self.destination.insertion(database.dialect, messages))
        database.execute_many(statement, rows)
        loop.call(partial(self.destination.written, database, messages))

    def _postponed_from(self, loop: _Loop, error: Exception) -> Outcome:
        return loop.call(partial(self.postponed, error))
