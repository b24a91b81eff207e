"""The page: self-contained, escaped, navigable."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from protoflow.asyncapi import to_html
from protoflow.asyncapi.page_style import STYLE

Documents = dict[str, dict[str, Any]]
_VOID = {"meta"}
_ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "nav", "main", "header", "section"),
    *("article", "h1", "h2", "h3", "h4", "p", "ul", "li", "a", "span", "code", "pre", "div"),
    *("table", "thead", "tbody", "tr", "th", "td", "details", "summary"),
}
_ATTRIBUTES = {
    *("charset", "class", "content", "href", "http-equiv", "id", "lang", "name", "scope"),
}


class Page(HTMLParser):
    """Reads a page strictly: every element is closed, in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: set[str] = set()
        self.attributes: set[str] = set()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.attributes |= {name for name, _ in attrs}
        found = dict(attrs)
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if "href" in found:
            self.links.append(str(found["href"]))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(params=["kafka", "rabbitmq", "sqlite", "static", "protobuf", "client"])
def page(documents: Documents, request: pytest.FixtureRequest) -> Page:
    return Page(to_html(documents[request.param]))


def test_pages_are_well_formed_and_hold_known_markup_only(page: Page) -> None:
    assert page.open == []
    assert page.elements <= _ELEMENTS
    assert page.attributes <= _ATTRIBUTES


def test_pages_load_nothing(page: Page) -> None:
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"url\(|@import|https?:", STYLE)


def test_links_lead_to_what_is_there_once(page: Page) -> None:
    assert len(page.ids) == len({*page.ids})
    assert {link[1:] for link in page.links} <= {*page.ids}


def test_hostile_comments_are_text(documents: Documents) -> None:
    text = to_html(documents["static"])
    page = Page(text)
    assert "<script" not in text
    assert "onerror" not in page.attributes
    assert "img" not in page.elements
    assert "<script>alert(\"placed\")</script> & 'quotes' `code`" in page.text


def test_hostile_names_are_text() -> None:
    bad = "</title></style><script>x</script>\"'&"
    document = {
        "asyncapi": "3.1.0", "info": {"title": bad, "version": bad, "description": bad},
        "channels": {}, "operations": {}, "components": {"schemas": {bad: {"enum": [bad]}}},
    }  # fmt: skip
    page = Page(to_html(document))
    assert "script" not in page.elements
    assert page.text.count(bad) >= 5


def test_pages_show_what_people_look_for(documents: Documents) -> None:
    shown = Page(to_html(documents["kafka"])).text
    for text in (
        "k1:9093", "shop.live.orders.placed", "billing.live", "PER_KEY", "30s", "orderId",
        "sensitive", "dead-letter", "How long a failed message waits", "deprecated", "ce_type",
        "At most one of text, number, nothing.", "Exactly one of left, right.", "COLOR_RED",
    ):  # fmt: skip
        assert text in shown, text


def test_pages_are_light_and_dark(page: Page) -> None:
    assert "prefers-color-scheme: dark" in STYLE
    colors = re.findall(r"(--\w+): #[0-9a-f]{6}", STYLE)
    assert sorted(colors) == sorted([*{*colors}] * 2)  # each color in both
