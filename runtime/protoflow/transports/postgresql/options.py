"""The options of `postgresql://`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions(TlsOptions, CredentialOptions):
    """The options of `postgresql://`; times are seconds.

    Attributes:
        schema: the PostgreSQL schema that holds the tables.
        connections: the most connections of a process, without the one that listens.
        prepared_statements: whether statements are prepared by name, which a pooler must support;
            None: unless a pooler stands between.
        listen_url: a direct URL for notifications, if the URL of the transport leads to a pooler.
        poll_interval: seconds between two polls of an idle subscription.
        notify_interval: the shortest time in seconds between two notifications of a publisher.
        command_timeout: seconds after which a statement is cancelled.
        lease: seconds after which other processes get the messages of a process that does not renew
            them; otherwise the lease of the config.
        max_message_bytes: the largest payload, key and metadata together, in bytes.
        retention: the shortest time in seconds for which a topic keeps its messages.
    """

    schema: str = "protoflow"
    connections: int = 8
    prepared_statements: bool | None = None
    listen_url: str | None = None
    poll_interval: float = 0.05
    notify_interval: float = 0.01
    command_timeout: float = 30.0
    lease: float | None = None
    max_message_bytes: int = 16 * 1024 * 1024
    retention: float = 7 * 86400.0

    def __post_init__(self) -> None:
        problems = [*self.tls_problems()]
        if not _SCHEMA.fullmatch(self.schema):
            problems.append(
                "option schema must be a lower-case identifier of 41 characters at most"
            )
        problems += [
            f"option {name} must be above 0"
            for name in (
                "poll_interval",
                "notify_interval",
                "command_timeout",
                "lease",
                "retention",
            )
            if getattr(self, name) is not None and getattr(self, name) <= 0
        ]
        if self.connections < 3:
            problems.append("option connections must be at least 3")
        if not 0 < self.max_message_bytes <= 256 * 1024 * 1024:
            problems.append("option max_message_bytes must be from 1 to 268435456")
        if problems:
            raise ConfigError(problems)
