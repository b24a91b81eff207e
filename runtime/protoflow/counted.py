"""Counts in texts for people."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Returns `1 message`, `2 messages`; the plural takes an s unless it is given."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
