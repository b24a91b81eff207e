"""Runs of handlers with exactly-once effects whose transactions are rolled back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from protoflow.context import Context
from protoflow.outcomes import DONE, Outcome
from protoflow.scheduling.exactly_once import ExactlyOnce
from protoflow.scheduling.exactly_once_sync import ExactlyOnceSync

if TYPE_CHECKING:
    from protoflow.database import DatabaseConnection, SyncDatabaseConnection
    from protoflow.inbox.transaction import SyncTransaction, Transaction


class Rehearsal(ExactlyOnce):
    """Runs the handler also for recorded messages. Its outputs stay in the context."""

    def repeated(self, items: Sequence[Context]) -> list[bool]:
        """Returns that all messages are run again."""
        return [True] * len(items)

    async def _keep_outputs(self, context: Context, database: DatabaseConnection) -> None:
        """Writes no outputs."""

    async def _commit(self, transaction: Transaction, context: Context) -> Outcome:
        """Commits nothing: closing the transaction rolls it back."""
        return DONE


class RehearsalSync(ExactlyOnceSync):
    """Does the same for handlers in threads."""

    def repeated(self, items: Sequence[Context]) -> list[bool]:
        """Returns that all messages are run again."""
        return [True] * len(items)

    def _write_outputs(
        self, loop: object, context: Context, database: SyncDatabaseConnection
    ) -> None:
        """Writes no outputs."""

    def _commit_sync(self, transaction: SyncTransaction) -> None:
        """Commits nothing: closing the transaction rolls it back."""
