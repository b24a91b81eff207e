"""The user's database connections: statements in the transaction that the user opened.

`adapt` takes an asyncpg or psycopg connection, a SQLAlchemy session or connection, or one of
SQLite, and gives one interface to it. Nothing here begins, commits or rolls back.
"""

from __future__ import annotations

from protoflow.database.interface import (
    DatabaseConnection,
    Dialect,
    Insertion,
    Row,
    SyncDatabaseConnection,
)
from protoflow.database.recognition import adapt, adapt_sync
from protoflow.database.transaction_watch import TransactionWatch

__all__ = [
    "DatabaseConnection",
    "Dialect",
    "Insertion",
    "Row",
    "SyncDatabaseConnection",
    "TransactionWatch",
    "adapt",
    "adapt_sync",
]
