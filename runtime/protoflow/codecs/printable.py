"""Text from messages, made fit for a line of a log."""

from __future__ import annotations

from typing import Final

_CUT: Final = "..."


def printable(text: str, limit: int = 200) -> str:
    """The text with everything escaped that is not printable, and cut.

    Ids, types and header names come from whoever sends a message. A line break in one would
    forge a line of the log, an escape sequence would drive the terminal that shows it, and a
    lone surrogate cannot be written to a file at all.

    Args:
        text: anything that came with a message.
        limit: characters that are kept; what is longer ends in `...`.
    """
    if len(text) <= limit and text.isprintable():
        return text
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
            for char in cut
        )
    return cut + _CUT if len(text) > limit else cut
