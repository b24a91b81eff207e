"""Builds HTML. Every string that is not `Html` is text, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Html(str):
    """Markup that is written without escaping."""

    __slots__ = ()


def element(name: str, *children: str | None, **attributes: str | None) -> Html:
    """Returns an element. Attributes that are None are left out.

    Args:
        name: the name, for example `td`.
        children: text, which is escaped, and markup.
        attributes: the attributes; a trailing underscore of a name is removed.
    """
    given = "".join(
        f' {key.rstrip("_")}="{html.escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def joined(pieces: Iterable[str | None]) -> Html:
    """Returns the concatenation of pieces."""
    return Html("".join(_markup(piece) for piece in pieces if piece is not None))


def table(heads: Iterable[str], rows: Iterable[Iterable[str | None]]) -> Html:
    """Returns a table, or nothing if there are no rows."""
    made = [element("tr", *(element("td", cell) for cell in row)) for row in rows]
    if not made:
        return Html()
    head = element("tr", *(element("th", text, scope="col") for text in heads))
    # A table that is wider than the page scrolls within this element.
    return element(
        "div",
        element("table", element("thead", head), element("tbody", *made)),
        class_="wide",
    )


def paragraphs(text: str | None) -> Html:
    """Returns an HTML paragraph for each paragraph of a text."""
    parts = (text or "").split("\n\n")
    return joined(element("p", part.strip("\n")) for part in parts if part.strip())


def _markup(piece: str) -> str:
    return piece if isinstance(piece, Html) else html.escape(piece)
