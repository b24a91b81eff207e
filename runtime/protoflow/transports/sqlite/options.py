"""The options of `sqlite://`."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Synchronous(enum.StrEnum):
    """What survives a power failure; a killed process loses nothing in either mode."""

    OFF = "off"
    NORMAL = "normal"
    FULL = "full"


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """The options of `sqlite://`; times are seconds.

    Attributes:
        synchronous: `normal` loses nothing if the process is killed; after a power cut the last
            transactions may be missing. `full` syncs every commit.
        busy_timeout: seconds to wait while another process writes.
        poll_interval: seconds between two checks for messages of other processes.
        lease: seconds after which other processes get the messages of a process that does not
            renew them; otherwise the lease of the config.
        max_message_bytes: the largest payload, key and metadata together, in bytes.
        retention: seconds for which a topic without groups keeps its messages.
        retained_messages: the most messages in a topic without groups; the oldest are dropped.
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
