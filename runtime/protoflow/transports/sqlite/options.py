"""The options of `sqlite://`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Synchronous(enum.StrEnum):
    """What survives a power cut; a killed process loses nothing either way."""

    OFF = "off"
    NORMAL = "normal"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """The options of `sqlite://`; durations in seconds or as `250ms`, `30s`.

    Attributes:
        synchronous: `normal` survives a killed process, and after a power cut the file is
            whole but the last transactions may be missing; `full` syncs every commit.
        busy_timeout: how long to wait for another process that writes.
        poll_interval: how often at most to look for what other processes published.
        lease: how long a process may be silent before others get what it holds; unset, it
            is what the subscription says.
        max_message_bytes: what is refused beyond, payload, key and metadata together.
        retention: for how long a topic without groups keeps its messages.
        retained_messages: how many messages a topic without groups keeps; the oldest go.
    """

    synchronous: Synchronous = Synchronous.NORMAL
    busy_timeout: float = 5.0
    poll_interval: float = 0.1
    lease: float | None = None
    max_message_bytes: int = 64 * 1024 * 1024
    retention: float = 7 * 86400.0
    retained_messages: int = 1_000_000

    def __post_init__(self) -> None:
        if self.poll_interval <= 0 or (self.lease is not None and self.lease <= 0):
            raise ValueError("poll_interval and lease must be above 0")
        if not 0 < self.max_message_bytes <= 900_000_000:
            raise ValueError("max_message_bytes must be from 1 to 900000000, SQLite's bound")
        if self.retention < 0 or self.retained_messages < 0 or self.busy_timeout < 0:
            raise ValueError("retention, retained_messages and busy_timeout must not be below 0")
