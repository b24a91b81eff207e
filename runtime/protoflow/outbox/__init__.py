"""Outboxes: messages in a database until a relay has published them.

https://microservices.io/patterns/data/transactional-outbox.html
"""

from __future__ import annotations

from protoflow.outbox.relay import OutboxRelay
from protoflow.outbox.sqlite import SQLiteOutbox
from protoflow.outbox.store import OutboxStore, Parked, Pending, RelayedOutbox

__all__ = ["OutboxRelay", "OutboxStore", "Parked", "Pending", "RelayedOutbox", "SQLiteOutbox"]
