"""Texts with counts, such as `2 messages`."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """Returns `1 message` or `2 messages`; without `plural` an s is added."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
