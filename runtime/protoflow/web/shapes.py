"""Checks a value that another process sent against a schema."""

from __future__ import annotations

from typing import Any

from protoflow.web.schemas import SCHEMAS, Schema

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "boolean": bool, "number": (int, float), "integer": int, "object": dict,
    "array": list, "null": type(None),
}  # fmt: skip


def fits(value: Any, schema: Schema) -> bool:
    """Returns whether a value fits a schema. Members that it does not name are allowed."""
    if (reference := schema.get("$ref")) is not None:
        return fits(value, SCHEMAS[reference.rpartition("/")[2]])
    if "enum" in schema:
        return value in schema["enum"]
    if "oneOf" in schema:
        return any(fits(value, each) for each in schema["oneOf"])
    named = schema["type"]
    if not any(_is(value, name) for name in ([named] if isinstance(named, str) else named)):
        return False
    if isinstance(value, list):
        return all(fits(each, schema["items"]) for each in value)
    return not isinstance(value, dict) or _members_fit(value, schema)


def _is(value: Any, name: str) -> bool:
    # In Python, True and False are integers.
    return isinstance(value, _TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _members_fit(value: dict[str, Any], schema: Schema) -> bool:
    known, others = schema.get("properties", {}), schema.get("additionalProperties")
    return set(schema.get("required", ())) <= value.keys() and all(
        fits(each, known[name]) if name in known else not others or fits(each, others)
        for name, each in value.items()
    )
