"""Reads the rules of protovalidate and applies them to schemas.

Rules are read with the descriptor pool of the message. So a request of protoc and a program that
imports generated modules give the same document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field as attribute
from typing import Any

from protoflow.asyncapi import keywords
from protoflow.dataclass_record import dataclass_record

_IF_ZERO_VALUE, _ALWAYS = 1, 3


@dataclass_record
class Limits:
    """The rules of a field as keywords.

    Attributes:
        keywords: keywords for the value, or for the list or the map.
        zero: values that are always valid; empty if there are none.
        must_be_there: whether a missing value breaks a rule.
        items: the limits of the items of a list.
        keys: the limits of the keys of a map.
        values: the limits of the values of a map.
        examples: examples in the rules.
    """

    keywords: Mapping[str, Any] = attribute(default_factory=dict)
    zero: tuple[Any, ...] = ()
    must_be_there: bool = False
    items: Limits | None = None
    keys: Limits | None = None
    values: Limits | None = None
    examples: tuple[Any, ...] = ()


def of_field(field: Any) -> Limits | None:
    """Returns the limits of a field; None if it has no rules."""
    found = _options(field, "field", field.file)
    return _limits(field, found, whole=True) if found is not None else None


def applied(
    schema: dict[str, Any],
    limits: Limits,
    beside: Callable[[dict[str, Any], Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """Returns the schema of a single value with its limits; `beside` joins keywords to a schema."""
    said = dict(limits.keywords)
    if "enum" in said and _is_nullable(schema):
        said["enum"] = [*said["enum"], None]
    if not limits.zero:
        return beside(_finite(schema, said), said)
    own = {name: value for name, value in said.items() if not name.startswith("x-")}
    named = {name: value for name, value in said.items() if name.startswith("x-")}
    choice = {"anyOf": [own, {"enum": [*limits.zero]}]} if own else {}
    return beside(beside(schema, choice), named)


def _is_nullable(schema: Mapping[str, Any]) -> bool:
    choices = [schema, *schema.get("anyOf", ())]
    return any("null" in choice.get("type", ()) for choice in choices)


def _finite(schema: dict[str, Any], limits: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a schema of floating-point numbers without the texts that break the limits."""
    choices = schema.get("anyOf", [{}])
    if choices[0].get("type") != "number":
        return schema
    lower = limits.keys() & {"minimum", "exclusiveMinimum"}
    upper = limits.keys() & {"maximum", "exclusiveMaximum"}
    finite = limits.get("x-protovalidate", {}).get("finite")
    if not lower and not upper and not finite:
        return schema
    # NaN is never within bounds.
    passing = "Infinity" if not upper else "-Infinity"
    special = [] if finite or (lower and upper) else [{"type": "string", "enum": [passing]}]
    null = [{"type": "null"}] if _is_nullable(schema) else []
    left = [choices[0], *special, *null]
    return {**choices[0]} if len(left) == 1 else {"anyOf": left}


def cel_of_message(message: Any) -> dict[str, Any]:
    """Returns the extension with the CEL rules of a whole message."""
    found = _options(message, "message", message.file)
    return _cel(found) if found is not None else {}


def oneofs_of_message(message: Any) -> Iterator[tuple[list[str], bool]]:
    """Yields the fields of each rule `oneof` of a message, and whether one must be set."""
    found = _options(message, "message", message.file)
    for rule in getattr(found, "oneof", ()):
        yield list(rule.fields), bool(rule.required)


def is_required_oneof(oneof: Any) -> bool:
    """Returns whether one of its fields must be set."""
    found = _options(oneof, "oneof", oneof.containing_type.file)
    return bool(found is not None and found.required)


def _options(descriptor: Any, kind: str, file: Any) -> Any:
    """Returns the options of protovalidate; None if there are none."""
    options = descriptor.GetOptions()
    data = options.SerializeToString()
    if not data:
        return None
    from google.protobuf import message_factory

    try:
        extension = file.pool.FindExtensionByName(f"buf.validate.{kind}")
    except KeyError:
        return None  # no file imports the rules, so no field has any
    known = message_factory.GetMessageClass(extension.containing_type).FromString(data)
    return known.Extensions[extension] if known.HasExtension(extension) else None


def _limits(field: Any, found: Any, *, whole: bool) -> Limits:
    """Returns the limits of a field, or with `whole` false those of an item, a key or a value."""
    if found.ignore == _ALWAYS:
        return Limits()
    plural = whole and keywords.is_plural(field)
    name = found.WhichOneof("type")
    typed = getattr(found, name) if name else None
    said: dict[str, Any] = {}
    if typed is not None:
        said = keywords.of_plural(typed) if plural else keywords.of_single(field, name, typed)
    said |= _cel(found)
    requires = whole and found.required
    if requires and not field.has_presence:
        keywords.require(said, field, plural=plural)
    rejects = not field.has_presence and keywords.rejects_zero(said, field, plural=plural)
    lenient = found.ignore == _IF_ZERO_VALUE and not requires
    return Limits(
        keywords=said,
        zero=tuple(keywords.zero(field)) if lenient and not plural and said else (),
        must_be_there=bool(requires or (whole and rejects and not lenient)),
        items=_inner(field, typed, "items") if plural else None,
        keys=_inner_of_map(field, typed, "keys", "key") if plural else None,
        values=_inner_of_map(field, typed, "values", "value") if plural else None,
        examples=() if plural else tuple(keywords.examples(field, name, typed)),
    )


def _inner(field: Any, typed: Any, name: str) -> Limits | None:
    if typed is None or name not in typed.DESCRIPTOR.fields_by_name or not typed.HasField(name):
        return None
    return _limits(field, getattr(typed, name), whole=False)


def _inner_of_map(field: Any, typed: Any, name: str, entry: str) -> Limits | None:
    inner = field.message_type
    if inner is None or not inner.GetOptions().map_entry:
        return None
    return _inner(inner.fields_by_name[entry], typed, name)


def _cel(found: Any) -> dict[str, Any]:
    said = [
        {
            name: getattr(rule, name)
            for name in ("id", "message", "expression")
            if getattr(rule, name)
        }
        for rule in found.cel
    ]
    said += [{"expression": text} for text in getattr(found, "cel_expression", ())]
    return {"x-protovalidate-cel": said} if said else {}
