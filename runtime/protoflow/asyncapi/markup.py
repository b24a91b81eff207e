"""HTML from pieces: what is no `Html` is text, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Html(str):
    """Markup that is written as it is."""

    __slots__ = ()


def element(name: str, *children: str | None, **attributes: str | None) -> Html:
    """An element; a trailing underscore of an attribute's name is left out, as is None.

    Args:
        name: the name, `td`.
        children: text, which is escaped, and markup.
        attributes: the attributes.
    """
    given = "".join(
        f' {key.rstrip("_")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def joined(pieces: Iterable[str | None]) -> Html:
    """Pieces one after another."""
    return Html("".join(_markup(piece) for piece in pieces if piece is not None))


def table(heads: Iterable[str], rows: Iterable[Iterable[str | None]]) -> Html:
    """A table, or nothing if it has no rows."""
    made = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    if not made:
        return Html()
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    # It scrolls by itself where it is wider than the page.
    return element(
        "div",
        element("table", element("thead", head), element("tbody", *made)),
        class_="wide",
    )


def paragraphs(text: str | None) -> Html:
    """Text with a paragraph for each of its own."""
    parts = (text or "").split("\n\n")
    return joined(element("p", part.strip("\n")) for part in parts if part.strip())


def _markup(piece: str) -> str:
    return piece if isinstance(piece, Html) else html.escape(piece)
