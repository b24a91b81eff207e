"""The connections of an outbox: those of the transport, used for single statements."""

from __future__ import annotations

from typing import Any

from protoflow.clock import Clock
from protoflow.config.options import parse_options
from protoflow.config.url import TransportURL
from protoflow.error_codes import NOT_OPEN
from protoflow.errors import TransportError
from protoflow.transport.kit.supervisor import describe
from protoflow.transport.settings import TransportSettings
from protoflow.transports.postgresql.database import FAILURES, Database
from protoflow.transports.postgresql.options import PostgresOptions


class OutboxDatabase(Database):
    """The database of an outbox. Raises ConfigError if the URL or its options are invalid."""

    def __init__(self, url: TransportURL) -> None:
        options = parse_options(PostgresOptions, url.query, {}, "postgresql")
        settings = TransportSettings(url=url, clock=Clock(), client_name="protoflow-outbox")
        super().__init__(settings, options)

    async def fetch(self, query: str, *values: object) -> list[Any]:
        """Runs one statement in its own transaction. Raises TransportError."""
        if self._pool is None:
            raise TransportError("the outbox is not open", code=NOT_OPEN)
        try:
            rows: list[Any] = await self._pool.fetch(query, *values)
        except FAILURES as error:
            raise TransportError(f"PostgreSQL: {describe(error)}") from error
        return rows
