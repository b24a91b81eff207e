"""The tables of annotations, made of the comments in options.proto; see scripts/docs.py."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from protoflow.contract.policy import BUILT_IN, leaves
from protoflow.v1 import options_pb2
from protoflow.v1.policy_fields import DELIVERY_FIELDS

_PROTO = Path(__file__).parents[1] / "proto" / "protoflow" / "v1" / "options.proto"
_MESSAGE = re.compile(r"^message (\w+) \{\n(.*?)^\}", re.M | re.S)
_FIELD = re.compile(r"((?:^  //.*\n)+)^  (?:optional|repeated) (\S+) (\w+) = \d+;", re.M)
#: Where the fields of a policy are declared, by the prefix of their path.
_POLICIES = {
    "": options_pb2.DeliveryPolicy.DESCRIPTOR.name,
    **{
        field.name: field.message_type.name
        for field in options_pb2.DeliveryPolicy.DESCRIPTOR.fields
        if field.message_type is not None
    },
}
#: Where the fields of an option are declared, by the name of the option.
_OPTIONS = {
    extension.name: extension.message_type.name
    for extension in options_pb2.DESCRIPTOR.extensions_by_name.values()
    if extension.message_type is not None
}
_MESSAGES: dict[str, str] = dict(_MESSAGE.findall(_PROTO.read_text()))

Table = Callable[[Iterable[str], Iterable[Iterable[str]]], str]


def annotation_tables(table: Table) -> Mapping[str, Callable[[], str]]:
    """Returns functions by the name of the table that they make."""

    def options(name: str) -> Callable[[], str]:
        return lambda: table(["option", "meaning"], _option_rows(_OPTIONS[name]))

    return {
        **{f"annotations-{name}": options(name) for name in _OPTIONS},
        "policy": lambda: table(["option", "default", "belongs to", "meaning"], _policy_rows()),
    }


def _option_rows(message: str) -> Iterator[list[str]]:
    for field, kind, meaning in _fields(message):
        values = ", ".join(f"`{value}`" for value in _values(kind))
        yield [f"`{field}`", f"{meaning} Values: {values}." if values else meaning]


def _policy_rows() -> Iterator[list[str]]:
    built_in = leaves(BUILT_IN)
    for path, field in DELIVERY_FIELDS.items():
        prefix, _, name = path.rpartition(".")
        kind, meaning = next(
            (kind, meaning) for found, kind, meaning in _fields(_POLICIES[prefix]) if found == name
        )
        default = _default(kind, built_in.get(path))
        others = [f"`{value}`" for value in _values(kind) if f"`{value}`" != default]
        if others:
            meaning += f" Other values: {', '.join(others)}."
        yield [f"`{path}`", default, field.owner, meaning]


def _values(kind: str) -> list[str]:
    """The values of an enum of options.proto; empty for another type."""
    found = options_pb2.DESCRIPTOR.enum_types_by_name.get(kind)
    return [value.name for value in found.values if value.number] if found else []


def _default(kind: str, value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, enum.Enum):
        return next(f"`{name}`" for name in _values(kind) if name.endswith(f"_{value.name}"))
    if kind == "google.protobuf.Duration":
        return f"{value:g} s"
    if isinstance(value, bool):
        return str(value).lower()
    return f"`{value}`" if isinstance(value, str) else f"{value:g}"


def _fields(message: str) -> Iterator[tuple[str, str, str]]:
    """Name, type and meaning of each field of a message in options.proto."""
    for comment, kind, name in _FIELD.findall(_MESSAGES[message]):
        text = " ".join(line.strip().removeprefix("//").strip() for line in comment.splitlines())
        yield name, kind, re.sub(r"(\{\w+\}|\b[a-z]+_[a-z_.]+\b|\bAny\b)", r"`\1`", text)
