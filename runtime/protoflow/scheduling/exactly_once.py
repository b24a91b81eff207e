"""The innermost step of handlers whose effects are applied exactly once.

begin -> note the message -> handler -> outputs into the outbox -> commit

All steps are one transaction. A failed run is rolled back and then treated as without an inbox.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final, Protocol

from protoflow.codecs.threaded import LARGE, decode_in_thread
from protoflow.context import CONNECTION, Context
from protoflow.error_codes import TOO_LARGE
from protoflow.errors import BatchFailed, PublishRefusedError, Unprepared
from protoflow.handler import Batch
from protoflow.inbox.entries import Entry, entry_of
from protoflow.inbox.failures import is_busy, is_conflict, is_refused, not_open
from protoflow.inbox.transaction import QuickOpener
from protoflow.message import Delivery, Message
from protoflow.outcomes import DONE, Outcome, Postpone, Skip
from protoflow.pipeline import HandlerSpec
from protoflow.registrations.registration import Registration
from protoflow.scheduling.batching import BatchContext
from protoflow.scheduling.hop_state import is_reprocessed
from protoflow.scheduling.invoke import Topics, all_outputs, ensure_topics, keep_result, results_of
from protoflow.scheduling.threads import Threads
from protoflow.transport.kit.backoff import Backoff

if TYPE_CHECKING:
    from protoflow.database import DatabaseConnection, Insertion, SyncDatabaseConnection
    from protoflow.database.interface import Dialect
    from protoflow.inbox import Inbox
    from protoflow.inbox.transaction import Transaction

_log = logging.getLogger("protoflow.inbox")

#: A run that loses a conflict with another transaction is repeated this often at once.
_CONFLICTS: Final = 3
#: The most outputs of one run, because they are kept in memory until the commit.
_MOST_OUTPUTS: Final = 10_000
_MOST_BYTES: Final = 64 * 1024 * 1024
#: Seconds before a run is repeated if its transaction could not begin.
_FIRST_WAIT: Final = 0.1
_LONGEST_WAIT: Final = 5.0
#: If the result of COMMIT is unknown, the inbox is asked after this time.
_UNKNOWN_WAIT: Final = 0.2


class Destination(Protocol):
    """The destination of a transaction's outputs: the transport's own log, or the outbox."""

    async def insertion(self, dialect: Dialect, messages: Sequence[Message], /) -> Insertion:
        """Returns the callable that writes messages. Raises PublishError."""
        ...

    def written(
        self,
        connection: DatabaseConnection | SyncDatabaseConnection,
        messages: Sequence[Message],
        /,
    ) -> None:
        """Wakes consumers that wait for messages, after the transaction has ended."""


class UnknownTopics(Exception):  # noqa: N818  the name states what happened
    """Outputs go to topics that do not exist yet; a transaction must not wait for them."""


class BatchRolledBack(Exception):  # noqa: N818  the name states what happened
    """Some messages of a batch failed, so the whole batch was rolled back."""


class ExactlyOnce:
    """Runs one handler.

    Args:
        registration: the handler.
        spec: the specification of the handler.
        inbox: opens transactions and records handled messages.
        destination: receives the outputs.
        threads: for handlers that are plain functions.
        topics: makes topics before the first message to them.
    """

    def __init__(
        self, registration: Registration, spec: HandlerSpec, inbox: Inbox[Any],
        destination: Destination, threads: Threads, topics: Topics,
    ) -> None:  # fmt: skip
        self.registration = registration
        self.spec = spec
        self.inbox = inbox
        self.destination = destination
        self.threads = threads
        self.topics = topics
        self._quick = inbox.opener if isinstance(inbox.opener, QuickOpener) else None
        self._backoff = Backoff(_FIRST_WAIT, _LONGEST_WAIT)

    async def run(self, delivery: Delivery, context: Context) -> Outcome:
        """Runs the handler for a message or a batch; it is a `Next`."""
        items: Sequence[Context] = (context,)
        if isinstance(context, BatchContext):
            items = context.items
        elif delivery.size > LARGE:
            await decode_in_thread(self.spec.decode, context)
        entries = [entry_of(item) for item in items]
        conflicts = 0
        while True:
            for item in items:
                self.spec.decode(item)  # an error before the transaction belongs to the message
            try:
                return await self.once(context, items, entries)
            except UnknownTopics:
                await ensure_topics(self.topics, all_outputs(context))
            except Unprepared as needed:
                await needed.prepare()
            except BatchFailed as failed:
                raise _single(failed, len(items)) from failed.__cause__
            except Exception as error:
                conflicts += 1
                if conflicts > _CONFLICTS or not is_conflict(error):
                    raise
            context.restart()

    async def once(
        self, context: Context, items: Sequence[Context], entries: Sequence[Entry]
    ) -> Outcome:
        """Runs the handler in one transaction."""
        try:
            transaction, fresh = await self._begin(items, entries)
        except Exception as error:
            return self.postponed(error)
        try:
            self.began()
            chosen = chosen_of(items, entries, fresh)
            if not chosen:
                return Skip("handled before")
            for each in {context, *chosen}:
                each.values[CONNECTION] = transaction.connection
            try:
                await self._handle(context, chosen)
                await self._keep_outputs(context, transaction.database)
                if not transaction.is_open:
                    raise not_open(self.spec.name, lost=transaction.is_lost)
                await transaction.prepare()
            finally:
                for each in {context, *chosen}:
                    each.values.pop(CONNECTION, None)
            return await self._commit(transaction, context)
        finally:
            await transaction.close()

    async def _begin(
        self, items: Sequence[Context], entries: Sequence[Entry]
    ) -> tuple[Transaction, Collection[Entry]]:
        """Opens a transaction and records messages; returns those that are to be handled."""
        opener, table = self.inbox.opener, self.inbox.table
        group, name, again = self.spec.group, self.spec.name, self.repeated(items)
        if opener is None:
            raise TypeError("the inbox opens transactions in threads only")
        if self._quick is not None and len(entries) == 1:
            statements = table.text(group, name, entries[0], again[0])
            transaction, inserted = await self._quick.begin_with(statements)
            return transaction, entries if inserted else ()
        transaction = await opener.begin()
        try:
            fresh = await table.enter(transaction.database, group, name, entries, again)
        except BaseException:
            await transaction.close()
            raise
        return transaction, fresh

    def repeated(self, items: Sequence[Context]) -> list[bool]:
        """Returns the messages that are run again although the inbox has recorded them."""
        group = self.spec.group
        return [is_reprocessed(item.delivery, group) for item in items]

    def postponed(self, error: Exception) -> Outcome:
        """Returns Postpone: the database was not available, so the handler did not run."""
        if not is_busy(error):
            self.inbox.failed(error)
        return Postpone(self._backoff.next(), f"no transaction of the inbox: {error}")

    def began(self) -> None:
        """Begins the run after the transaction has claimed the inbox entries."""
        self._backoff.reset()
        self.inbox.works()

    def given(self, context: Context, chosen: Sequence[Context]) -> Any:
        """Returns the handler's argument."""
        if self.registration.batched:
            return Batch([item.decoded for item in chosen], chosen)
        return context.decoded

    def keep(self, context: Context, result: Any, size: int = 0) -> int:
        """Keeps a result until the commit; returns the bytes so far. Raises if too many."""
        size += keep_result(context, self.spec.publication, result)
        if len(context.outputs) > _MOST_OUTPUTS or size > _MOST_BYTES:
            raise PublishRefusedError(
                f"{self.spec.name}: the outputs of one run are kept until it commits, at most "
                f"{_MOST_OUTPUTS:,} messages and {_MOST_BYTES:,} bytes; publish fewer a message",
                code=TOO_LARGE,
            )
        return size

    def ready_outputs(self, context: Context) -> list[Message]:
        """Returns the outputs of the run if their topics exist. Raises UnknownTopics."""
        if self.topics.unknown(all_outputs(context)):
            raise UnknownTopics
        return context.take_outputs()

    async def _handle(self, context: Context, chosen: Sequence[Context]) -> None:
        given = self.given(context, chosen)
        if self.registration.streams:
            size = 0
            stream = results_of(self.registration, given, context, self.threads)
            async with aclosing(stream) as results:
                async for result in results:
                    size = self.keep(context, result, size)
        else:
            result = await self.registration.call(given, context)
            if result is not None and self.spec.publication is not None:
                self.keep(context, result)

    async def _keep_outputs(self, context: Context, database: DatabaseConnection) -> None:
        if not all_outputs(context):
            return
        messages = self.ready_outputs(context)
        statement, rows = await self.destination.insertion(database.dialect, messages)
        await database.execute_many(statement, rows)
        self.destination.written(database, messages)

    async def _commit(self, transaction: Transaction, context: Context) -> Outcome:
        try:
            await transaction.commit()
        except asyncio.CancelledError:
            return unknown()
        except Exception as error:
            if is_refused(error):
                raise
            return unknown()
        context.confirm()
        return DONE


def unknown() -> Outcome:
    """Handles a lost answer to COMMIT: the next run finds the entry or handles the message."""
    _log.warning("a COMMIT of the inbox has an unknown result; the inbox is asked")
    return Postpone(_UNKNOWN_WAIT, "the result of COMMIT is not known")


def chosen_of(
    items: Sequence[Context], entries: Sequence[Entry], fresh: Collection[Entry]
) -> list[Context]:
    """Returns the messages to handle: each new message, once."""
    left = set(fresh)
    chosen = []
    for item, entry in zip(items, entries, strict=True):
        if entry in left:
            left.discard(entry)
            chosen.append(item)
    return chosen


def _single(failed: BatchFailed, count: int) -> Exception:
    """Returns the error for a `BatchFailed`, which rolls back the whole batch.

    If the batch has one message, it is the error of this message; otherwise it causes the messages
    to be handled one by one.
    """
    if count == 1 and failed.errors:
        error = next(iter(failed.errors.values()))
        return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
    return BatchRolledBack(str(failed))
