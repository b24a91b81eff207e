"""Outboxes: messages in a database until a relay has published them.

https://microservices.io/patterns/data/transactional-outbox.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoflow.lazy_exports import lazy_exports
from protoflow.outbox.relay import OutboxRelay
from protoflow.outbox.sqlite import SQLiteOutbox
from protoflow.outbox.store import OutboxStore, Parked, Pending, RelayedOutbox
from protoflow.outbox.tables import schema

if TYPE_CHECKING:
    from protoflow.outbox.postgresql import PostgresOutbox as PostgresOutbox

__all__ = [
    "OutboxRelay",
    "OutboxStore",
    "Parked",
    "Pending",
    "PostgresOutbox",
    "RelayedOutbox",
    "SQLiteOutbox",
    "schema",
]

if not TYPE_CHECKING:
    # this module needs asyncpg
    __getattr__ = lazy_exports(__name__, {"PostgresOutbox": "postgresql"})
