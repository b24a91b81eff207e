"""The options of `file://`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from protoflow.errors import ConfigError

_POLICIES: Final = ("always", "interval", "never")
_LARGEST: Final = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class FileOptions:
    """The options of `file://`; times are seconds.

    Attributes:
        fsync: when messages are written to the disk: `always` before they are confirmed, `interval`
            every `fsync_interval`, `never` when the operating system does it.
        fsync_interval: seconds between two writes to the disk with `interval`.
        segment_bytes: the size from which a topic continues in a new file.
        retention: seconds for which a file of messages is kept after its last message; 0 keeps all.
        retention_bytes: the bytes of a topic above which its oldest files are removed; 0 keeps all.
        retention_before_groups: whether files are removed even if a group has not settled their
            messages; the position of that group is then lost.
        max_message_bytes: the largest payload, key and metadata together, in bytes.
        max_set_aside: the messages of a group that may wait for others of their key or for their
            time; above it, the group reads no new ones.
        poll_interval: seconds between two checks for messages of other processes.
    """

    fsync: str = "always"
    fsync_interval: float = 1.0
    segment_bytes: int = 32 * 1024 * 1024
    retention: float = 0.0
    retention_bytes: int = 0
    retention_before_groups: bool = False
    max_message_bytes: int = 16 * 1024 * 1024
    max_set_aside: int = 100_000
    poll_interval: float = 0.05

    def __post_init__(self) -> None:
        problems = []
        if self.fsync not in _POLICIES:
            problems.append("option fsync must be always, interval or never")
        if self.fsync_interval <= 0 or self.poll_interval <= 0:
            problems.append("options fsync_interval and poll_interval must be above 0")
        if self.segment_bytes < 1 or self.max_set_aside < 1:
            problems.append("options segment_bytes and max_set_aside must be above 0")
        if self.retention < 0 or self.retention_bytes < 0:
            problems.append("options retention and retention_bytes must not be below 0")
        if not 0 < self.max_message_bytes <= _LARGEST:
            problems.append(f"option max_message_bytes must be from 1 to {_LARGEST}")
        if problems:
            raise ConfigError(problems)
