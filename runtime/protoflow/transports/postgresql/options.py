"""The options of `postgresql://`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from protoflow.errors import ConfigError
from protoflow.transport.kit.security_options import CredentialOptions, TlsOptions

_SCHEMA = re.compile(r"[a-z_][a-z0-9_]{0,40}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresOptions(TlsOptions, CredentialOptions):
    """The options of `postgresql://`; durations in seconds or as `250ms`, `30s`.

    Attributes:
        schema: the PostgreSQL schema that holds the tables.
        connections: how many connections a process opens at most, beside the one that listens.
        listen_url: where notifications are received, if the URL leads to a pooler.
        poll_interval: seconds between two looks of an idle subscription.
        notify_interval: seconds between two notifications of a publisher at least.
        command_timeout: seconds after which a statement is given up.
        lease: seconds for which a process may be silent before others get what it holds; unset,
            the subscription's.
        max_message_bytes: what is refused beyond, payload, key and metadata together.
        retention: seconds for which a topic keeps its messages at least.
    """

    schema: str = "protoflow"
    connections: int = 8
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
