"""Logs and journals in a directory, for tests below the transport."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from protoflow.message import Message
from protoflow.transports.file.log_appender import LogAppender
from protoflow.transports.file.log_reader import LogReader
from protoflow.transports.file.records import Record, encode

SALT = 0x1234
NOW = 1_700_000_000.0


def part(number: int, size: int = 10) -> bytes:
    message = Message(id=f"m{number}", topic="t", payload=bytes([number % 256]) * size, key=b"k")
    return encode(message, 1 << 20, NOW)


def appender(folder: Path, segment_bytes: int = 1 << 20) -> LogAppender:
    return LogAppender(str(folder), SALT, segment_bytes, durable=False)


def write(folder: Path, count: int, *, first: int = 0, segment_bytes: int = 1 << 20) -> None:
    log = appender(folder, segment_bytes)
    for number in range(first, first + count):
        log.append([part(number)], NOW + number)
    log.close()


def read(folder: Path) -> list[Record]:
    """All records, damaged ones too."""
    reader = LogReader(str(folder), SALT)
    try:
        found: list[Record] = []
        position = reader.first()
        while records := reader.read(position, 3):
            found += records
            position = records[-1].end
        return found
    finally:
        reader.close()


def ids(records: Sequence[Record]) -> list[str]:
    """The ids of the records; `!` for a damaged one."""
    return ["!" if each.head is None else each.head["id"] for each in records]


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.log"))
