"""The inbox: exactly-once effects in the user's database.

https://microservices.io/patterns/communication-style/idempotent-consumer.html
"""

from __future__ import annotations

from protoflow.inbox.inbox import Inbox
from protoflow.inbox.table import POSTGRESQL_SCHEMA, SQLITE_SCHEMA

__all__ = ["POSTGRESQL_SCHEMA", "SQLITE_SCHEMA", "Inbox"]
