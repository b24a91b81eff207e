"""Schemas as tables: a row for each property."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from protoflow.asyncapi.markup import Html, element, joined, paragraphs, table

_SHOWN_ELSEWHERE = {
    *("$ref", "allOf", "additionalProperties", "anyOf", "description", "items", "oneOf"),
    *("properties", "required", "type", "deprecated"),
}


def schema_table(schema: Mapping[str, Any]) -> Html:
    """Returns the properties of an object, or the rules of another value."""
    required = schema.get("required", ())
    rows = [
        (
            element("code", name),
            kind(property),
            joined(_marks(property, required=name in required)),
            joined((paragraphs(property.get("description")), _rules(property))),
        )
        for name, property in schema.get("properties", {}).items()
    ]
    own = {key: value for key, value in schema.items() if key != "properties"}
    return joined(
        (
            paragraphs(schema.get("description")),
            table(("property", "type", "", "rules"), rows),
            _choices(schema),
            _rules(own),
        )
    )


def kind(schema: Mapping[str, Any]) -> Html:
    """Returns the type of a value; a type with a schema of its own is a link."""
    if name := _name(schema):
        return element("a", name, href=f"#schema-{name}")
    for part in schema.get("allOf", ()):
        if _name(part):
            return kind(part)
    if "items" in schema:
        return joined(("list of ", kind(schema["items"])))
    if isinstance(schema.get("additionalProperties"), Mapping):
        return joined(("map of ", kind(schema["additionalProperties"])))
    if "anyOf" in schema and "type" not in schema:
        return _alternatives([kind(part) for part in schema["anyOf"]])
    kinds = schema.get("type", "any")
    text = " or ".join(kinds) if isinstance(kinds, list) else str(kinds)
    detail = schema.get("format") or schema.get("contentEncoding")
    return joined((text, f" ({detail})" if detail else None))


def _alternatives(kinds: list[Html]) -> Html:
    unique = [*dict.fromkeys(kinds)]
    return joined((one if not index else joined((" or ", one))) for index, one in enumerate(unique))


def _name(schema: Mapping[str, Any]) -> str:
    reference = str(schema.get("$ref", ""))
    return reference.rpartition("/")[2] if reference.startswith("#/components/schemas/") else ""


def _marks(schema: Mapping[str, Any], *, required: bool) -> Iterator[Html]:
    for mark, shown in (
        ("required", required),
        ("sensitive", schema.get("x-protoflow-sensitive")),
        ("deprecated", schema.get("deprecated")),
    ):
        if shown:
            yield element("span", mark, class_=f"mark {mark}")


def _rules(schema: Mapping[str, Any]) -> Html:
    """Returns the keywords that no column shows."""
    said = {
        name: value
        for name, value in schema.items()
        if name not in _SHOWN_ELSEWHERE
        and name not in ("format", "contentEncoding", "x-protoflow-sensitive")
    }
    number = said.pop("x-protobuf-index", None)
    pieces = [f"{name}: {_text(value)}" for name, value in said.items()]
    if number is not None:
        pieces.append(f"field {number}")
    return joined(element("code", piece, class_="rule") for piece in pieces)


def _choices(schema: Mapping[str, Any]) -> Html:
    """Returns texts that name properties that exclude each other."""
    groups = [schema, *schema.get("allOf", ())]
    found = []
    for group in groups:
        names = [name for part in group.get("oneOf", ()) for name in part.get("required", ())]
        if names:
            may_lack = any("not" in part for part in group["oneOf"])
            word = "At most one of" if may_lack else "Exactly one of"
            found.append(element("p", f"{word} {', '.join(names)}."))
    return joined(found)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
