"""The user's database connections: statements in the transaction that the user opened.

`adapt` takes an asyncpg or psycopg connection, a SQLAlchemy session or connection, or an SQLite
connection, and returns a common interface to it. This package never begins, commits or rolls back a
transaction.
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
