"""Converts rules of protovalidate to keywords of JSON Schema.

If JSON Schema cannot express a rule, `x-protovalidate` contains it under its name. If a keyword
expresses a part of the rule, the schema has both.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from protoflow.asyncapi import scalars

Keywords: TypeAlias = dict[str, Any]

#: Syntax of regular expressions that RE2 has, and JSON Schema does not have.
_ONLY_RE2 = re.compile(r"\(\?[^:=!]|\\[pPAzCQE]|\[\[:")
_FORMATS = {
    "email": "email",
    "hostname": "hostname",
    "ipv4": "ipv4",
    "ipv6": "ipv6",
    "uri": "uri",
    "uri_ref": "uri-reference",
    "uuid": "uuid",
}
_TEXT_RULES: Mapping[str, Callable[[Any], Keywords]] = {
    "len": lambda value: {"minLength": value, "maxLength": value},
    "min_len": lambda value: {"minLength": value},
    "max_len": lambda value: {"maxLength": value},
    "prefix": lambda value: {"pattern": f"^{_literal(value)}"},
    "suffix": lambda value: {"pattern": f"{_literal(value)}$"},
    "contains": lambda value: {"pattern": _literal(value)},
    "not_contains": lambda value: {"not": {"pattern": _literal(value)}},
    "tuuid": lambda _: {"pattern": "^[0-9a-fA-F]{32}$"},
    "ulid": lambda _: {"pattern": "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$"},
    "ip": lambda _: {"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
}
#: Rules that limit bytes of text, and the limits of characters that follow from them. A character
#: has one to four bytes.
_BYTE_RULES: Mapping[str, Callable[[int], Keywords]] = {
    "len_bytes": lambda value: {"minLength": -(-value // 4), "maxLength": value},
    "min_bytes": lambda value: {"minLength": -(-value // 4)},
    "max_bytes": lambda value: {"maxLength": value},
}
_BOUNDS = {"gt": "exclusiveMinimum", "gte": "minimum", "lt": "exclusiveMaximum", "lte": "maximum"}
_PLURAL = {
    "min_items": "minItems", "max_items": "maxItems", "unique": "uniqueItems",
    "min_pairs": "minProperties", "max_pairs": "maxProperties",
}  # fmt: skip


def is_plural(field: Any) -> bool:
    """Returns whether a field is a list or a map."""
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == 3)


def of_plural(typed: Any) -> Keywords:
    """Returns the keywords of `RepeatedRules` or `MapRules`."""
    return {_PLURAL[rule.name]: value for rule, value in typed.ListFields() if rule.name in _PLURAL}


def of_single(field: Any, name: str, typed: Any) -> Keywords:
    """Returns the keywords of the rules of one kind of value.

    Args:
        field: the field that has the rules.
        name: the kind, for example `int64`.
        typed: the rules.
    """
    found: list[Keywords] = []
    rest: Keywords = {}
    rules = {rule.name: value for rule, value in typed.ListFields() if not rule.is_extension}
    rules.pop("example", None)
    if name in scalars.NUMBERS:
        found += _bounds(name, rules)
    for rule, value in rules.items():
        said = _of_rule(field, name, rule, value)
        if said is None:
            rest[rule] = json_value(value)
        else:
            found += [said]
            if rule in _BYTE_RULES and name == "string":
                rest[rule] = value
    return {**joined(found), **({"x-protovalidate": rest} if rest else {})}


def _of_rule(field: Any, name: str, rule: str, value: Any) -> Keywords | None:
    """Returns the keywords of one rule; None if JSON Schema cannot express it."""
    if rule in ("const", "in", "not_in") and name not in ("duration", "timestamp", "field_mask"):
        given = [value] if rule == "const" else [*value]
        listed = _listed(field, name, given)
        return {"not": listed} if rule == "not_in" else listed
    if name == "string":
        return _of_text(rule, value)
    if name == "bytes" and rule in ("len", "min_len", "max_len"):
        # Three bytes are encoded as four characters of base64.
        return _TEXT_RULES[rule](4 * -(-value // 3))
    if name == "enum" and rule == "defined_only":
        return {}  # only enum values have names
    return None


def _of_text(rule: str, value: Any) -> Keywords | None:
    if rule == "pattern":
        return None if _ONLY_RE2.search(value) else {"pattern": value}
    if rule in _FORMATS:
        return {"format": _FORMATS[rule]} if value else {}
    made = _TEXT_RULES.get(rule) or _BYTE_RULES.get(rule)
    return made(value) if made is not None else None


def _listed(field: Any, name: str, given: list[Any]) -> Keywords:
    """Returns the keyword for a list of values, one of which must be present."""
    if name == "enum":
        names = field.enum_type.values_by_number
        return {"enum": [names[number].name for number in given if number in names]}
    if name == "any":
        return {"properties": {"@type": {"enum": given}}}
    return {"enum": [form for value in given for form in scalars.written(name, value)]}


def _bounds(name: str, rules: Keywords) -> Iterator[Keywords]:
    """Yields the keywords of the bounds, and removes these rules."""
    said = {
        _BOUNDS[rule]: scalars.written(name, rules.pop(rule))[-1]
        for rule in _BOUNDS
        if rule in rules
    }
    lower = next((said[key] for key in ("minimum", "exclusiveMinimum") if key in said), None)
    upper = next((said[key] for key in ("maximum", "exclusiveMaximum") if key in said), None)
    if lower is not None and upper is not None and _outside(lower, upper):
        # A lower bound above the upper one excludes the values between them.
        yield {"anyOf": [{key: value} for key, value in said.items()]}
    elif said:
        yield {key: value for key, value in said.items() if not isinstance(value, str)}


def _outside(lower: Any, upper: Any) -> bool:
    return not isinstance(lower, str) and not isinstance(upper, str) and lower > upper


def joined(found: list[Keywords]) -> Keywords:
    """Returns one schema with all keywords, which must hold together."""
    schema: Keywords = {}
    more: list[Keywords] = []
    for keywords in found:
        if keywords.keys() & schema.keys():
            more.append(keywords)
        else:
            schema |= keywords
    return {**schema, "allOf": more} if more else schema


def require(said: Keywords, field: Any, *, plural: bool) -> None:
    """Adds the keyword that excludes the zero of the field's type."""
    if plural:
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        said.setdefault("minProperties" if is_map else "minItems", 1)
    elif field.type in (field.TYPE_STRING, field.TYPE_BYTES):
        said["minLength"] = max(1, said.get("minLength", 0))
    elif "not" not in said:
        said["not"] = {"enum": zero(field)}
    else:
        said["allOf"] = [*said.get("allOf", ()), {"not": {"enum": zero(field)}}]


def zero(field: Any) -> list[Any]:
    """Returns the JSON forms of the zero of a field's type."""
    if field.enum_type is not None:
        return [field.enum_type.values[0].name]
    if field.message_type is not None:
        return [None]
    name = scalars.kind(field)
    return scalars.written(name, {"string": "", "bytes": b"", "bool": False}.get(name, 0))


def rejects_zero(said: Keywords, field: Any, *, plural: bool) -> bool:
    """Returns whether the keywords reject the zero of a field, as far as this can be computed."""
    if plural:
        return bool(said.get("minItems") or said.get("minProperties"))
    if field.message_type is not None:
        return False
    first = zero(field)[0]
    if "enum" in said and first not in said["enum"]:
        return True
    if isinstance(first, str) and (field.type in (field.TYPE_STRING, field.TYPE_BYTES)):
        return _rejects_empty(said)
    return _excludes(said) or first in said.get("not", {}).get("enum", ())


def _excludes(said: Keywords) -> bool:
    """Returns whether bounds exclude 0."""
    outside = said.get("anyOf", ())
    return (
        said.get("minimum", 0) > 0
        or said.get("exclusiveMinimum", -1) >= 0
        or said.get("maximum", 0) < 0
        or said.get("exclusiveMaximum", 1) <= 0
        or (bool(outside) and all(_excludes(part) for part in outside))
    )


def _rejects_empty(said: Keywords) -> bool:
    if said.get("minLength", 0) > 0 or said.get("format", "uri-reference") != "uri-reference":
        return True
    if "" in said.get("not", {}).get("enum", ()):
        return True
    try:
        return "pattern" in said and re.search(said["pattern"], "") is None
    except re.error:
        return False


def examples(field: Any, name: str | None, typed: Any) -> Iterator[Any]:
    """Yields the examples in rules."""
    if name is None or name == "enum" or "example" not in typed.DESCRIPTOR.fields_by_name:
        return
    for value in typed.example:
        yield json_value(value) if name not in scalars.SCALARS else scalars.written(name, value)[0]


def json_value(value: Any) -> Any:
    """Returns a value of a rule as plain data."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return str(value)
    if isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "DESCRIPTOR"):
        from google.protobuf import json_format

        return json.loads(json_format.MessageToJson(value))
    return [json_value(item) for item in value]


def _literal(text: str) -> str:
    """Returns a regular expression that matches exactly this text."""
    return re.sub(r"([\\^$.|?*+()\[\]{}/])", r"\\\1", text)
