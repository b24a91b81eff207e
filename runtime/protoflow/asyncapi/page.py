"""The document as one HTML page that loads nothing: no script, no font, no image."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from protoflow.asyncapi.markup import Html, element, joined, paragraphs, table
from protoflow.asyncapi.page_style import STYLE
from protoflow.asyncapi.schema_table import kind, schema_table

#: With this policy, browsers load nothing, even if a comment of the .proto contains markup.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_EXTENSION = "x-protoflow-"
_MARKED_IN_SCHEMAS = f"{_EXTENSION}sensitive"


def to_html(document: Mapping[str, Any]) -> str:
    """Returns the page of a document."""
    title = str(document["info"]["title"])
    sections = [
        ("servers", "Servers", _servers(document)),
        ("operations", "Operations", joined(_operations(document))),
        ("channels", "Channels", joined(_channels(document))),
        ("messages", "Messages", joined(_messages(document))),
        ("schemas", "Schemas", joined(_schemas(document))),
    ]
    sections = [section for section in sections if section[2]]
    links = [element("li", _link(id, name), _contents(document, id)) for id, name, _ in sections]
    body = [
        element("section", element("h2", name), content, id=id) for id, name, content in sections
    ]
    head = joined(
        (
            Html('<meta charset="utf-8">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<meta name="color-scheme" content="light dark">'),
            element("title", title),
            element("style", Html(STYLE)),
        )
    )
    page = element(
        "html",
        element("head", head),
        element(
            "body",
            element("nav", element("ul", *links), id="contents"),
            element("main", _header(document), *body),
        ),
        lang="en",
    )
    return f"<!doctype html>\n{page}\n"


def _header(document: Mapping[str, Any]) -> Html:
    info = document["info"]
    facts = [f"version {info['version']}", f"AsyncAPI {document['asyncapi']}"]
    if transport := info.get("x-protoflow-transport"):
        facts.append(f"transport {transport}")
    facts += info.get("x-protoflow-sources", ())
    return element(
        "header",
        element("h1", str(info["title"])),
        element("p", " · ".join(map(str, facts)), class_="facts"),
        paragraphs(info.get("description")),
    )


def _contents(document: Mapping[str, Any], section: str) -> Html:
    """Returns the links to the objects of a section."""
    found = {
        "operations": document["operations"],
        "channels": document["channels"],
        "messages": document["components"].get("messages", {}),
    }.get(section, {})
    links = [element("li", _link(f"{section[:-1]}-{name}", name)) for name in found]
    return element("ul", *links) if links else Html()


def _servers(document: Mapping[str, Any]) -> Html:
    rows = [
        (
            element("code", name),
            element("code", f"{server['host']}{server.get('pathname', '')}"),
            server["protocol"],
            ", ".join(_last(scheme) for scheme in server.get("security", ())),
        )
        for name, server in document.get("servers", {}).items()
    ]
    return table(("name", "host", "protocol", "security"), rows)


def _operations(document: Mapping[str, Any]) -> Iterator[Html]:
    for name, operation in document["operations"].items():
        channel = _last(operation["channel"])
        facts: list[tuple[str, str]] = [
            ("channel", _link(f"channel-{channel}", document["channels"][channel]["address"])),
            ("message", joined(_message_links(operation["messages"]))),
        ]
        facts += _policy(operation.get("x-protoflow", {}))
        action = operation["action"]
        yield _article(
            f"operation-{name}",
            joined((element("span", action, class_=f"action {action}"), " ", name)),
            paragraphs(operation.get("description") or operation.get("summary")),
            table(("", ""), facts),
            _bindings(operation),
        )


def _policy(said: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields a row for each value of a policy."""
    for name, value in said.items():
        if isinstance(value, Mapping) and "$ref" in value:
            yield f"{prefix}{name}", _link(f"channel-{_last(value)}", _last(value))
        elif isinstance(value, Mapping):
            yield from _policy(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _plain(value)


def _channels(document: Mapping[str, Any]) -> Iterator[Html]:
    for name, channel in document["channels"].items():
        role = channel.get("x-protoflow-role")
        parameters = [
            (
                element("code", f"{{{parameter}}}"),
                joined((said.get("description"), f" One of {', '.join(said['enum'])}."
                        if "enum" in said else None)),
            )
            for parameter, said in channel.get("parameters", {}).items()
        ]  # fmt: skip
        messages = channel["messages"].values()
        yield _article(
            f"channel-{name}",
            joined(
                (
                    element("code", channel["address"]),
                    element("span", role, class_="mark role") if role else None,
                )
            ),
            table(("parameter", ""), parameters),
            element("p", "Messages: ", joined(_message_links(messages))),
            _bindings(channel),
        )


def _messages(document: Mapping[str, Any]) -> Iterator[Html]:
    for name, message in document["components"].get("messages", {}).items():
        facts: list[tuple[str, str]] = [("content type", element("code", message["contentType"]))]
        facts += [
            (key.removeprefix(_EXTENSION).replace("-", " "), element("code", _plain(value)))
            for key, value in message.items()
            if key.startswith(_EXTENSION) and key != _MARKED_IN_SCHEMAS
        ]
        tags = [element("span", tag["name"], class_="mark") for tag in message.get("tags", ())]
        yield _article(
            f"message-{name}",
            joined((name, " ", *tags)),
            paragraphs(message.get("description") or message.get("summary")),
            table(("", ""), facts),
            element("h4", "Payload"),
            _payload(message["payload"]),
            element("h4", "Headers"),
            _headers(document, message),
            _bindings(message),
        )


def _payload(payload: Mapping[str, Any]) -> Html:
    if "schemaFormat" in payload:
        return element("pre", str(payload["schema"]))
    if "$ref" in payload:
        return element("p", kind(payload))
    return schema_table(payload)


def _headers(document: Mapping[str, Any], message: Mapping[str, Any]) -> Html:
    """Returns the headers of a message and its trait; headers of the message have priority."""
    found: dict[str, Any] = {}
    for trait in message.get("traits", ()):
        headers = document["components"]["messageTraits"][_last(trait)]["headers"]
        found |= {**headers["properties"]}
    found |= message.get("headers", {}).get("properties", {})
    return schema_table({"properties": found})


def _schemas(document: Mapping[str, Any]) -> Iterator[Html]:
    for name, schema in document["components"].get("schemas", {}).items():
        yield _article(f"schema-{name}", name, schema_table(schema))


def _bindings(described: Mapping[str, Any]) -> Html:
    """Returns bindings and extensions of proposals, folded."""
    said = {
        name: described[name]
        for name in ("bindings", "x-retry", "x-deadLetter")
        if name in described
    }
    if not said:
        return Html()
    text = json.dumps(said, indent=2, ensure_ascii=False)
    return element("details", element("summary", ", ".join(said)), element("pre", text))


def _article(id: str, title: str, *content: Html) -> Html:
    return element("article", element("h3", title), *content, id=id)


def _message_links(references: Any) -> Iterator[str]:
    for index, reference in enumerate(references):
        name = _last(reference)
        yield joined((", " if index else None, _link(f"message-{name}", name)))


def _link(id: str, text: str) -> Html:
    return element("a", text, href=f"#{id}")


def _last(reference: Mapping[str, str]) -> str:
    return reference["$ref"].rpartition("/")[2]


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value)
