"""Makes text from messages safe for a line of a log."""

from __future__ import annotations

from typing import Final

_CUT: Final = "..."


def printable(text: str, limit: int = 200) -> str:
    """Returns the text, shortened and with all unprintable characters escaped.

    Ids, types and header names come from the sender of a message. A line break in them could forge
    a line of the log, an escape sequence could control the terminal, and a lone surrogate cannot be
    written to a file.

    Args:
        text: any text from a message.
        limit: the most characters that are kept; a longer text ends in `...`.
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
