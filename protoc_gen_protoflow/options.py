"""Reads options as single values such as `retry.max_attempts`, which are merged one by one.

A Duration is one value; `MergeFrom` would merge the seconds of one with the nanos of another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from google.protobuf.unknown_fields import UnknownFieldSet
from protoflow.error_codes import DEAD_LETTER_TOPIC, NAME_RULE, OPTION_VALUE, UNKNOWN_OPTION

from protoc_gen_protoflow import value_rules
from protoc_gen_protoflow.annotations import RULES
from protoc_gen_protoflow.contract import Leaf, Leaves
from protoc_gen_protoflow.problems import Problems
from protoc_gen_protoflow.request import Location
from protoc_gen_protoflow.text import literal

if TYPE_CHECKING:
    from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
    from google.protobuf.duration_pb2 import Duration
    from google.protobuf.message import Message


class OptionReader:
    """Reads values from option messages and reports the mistakes in them."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def values(self, options: Message, place: Location, level: int) -> dict[str, Leaf]:
        """Returns the values of an option message, without lists and nested messages."""
        self.unknown(options, place)
        found: dict[str, Leaf] = {}
        for field, value in options.ListFields():
            if isinstance(value, str | int | float):
                leaf = self._scalar(field, field.name, value, place.at(field.number), level)
                if leaf:
                    found[field.name] = leaf
        return found

    def enum(self, options: Message, name: str, place: Location) -> Leaf | None:
        """Returns the value of one enum in the options of a method, if it is set."""
        if not options.HasField(name):
            return None
        field = cast("FieldDescriptor", options.DESCRIPTOR.fields_by_name[name])
        return self._scalar(field, name, getattr(options, name), place.at(field.number), level=2)

    def policy(self, policy: Message, place: Location, level: int) -> dict[str, Leaf]:
        """Returns the values that are set in a policy."""
        found = dict(self._walk(policy, place, level, ""))
        self._problems_of_backoff(found)
        return found

    def unknown(self, options: Message, place: Location) -> None:
        """Reports the fields that this plugin does not know."""
        # The stubs do not declare the items of the set.
        for field in cast("Iterable[Any]", UnknownFieldSet(options)):
            number: int = field.field_number
            self._problems.add(
                place.at(number),
                f"field {number} of {options.DESCRIPTOR.full_name} is not known to this plugin: "
                "the options.proto in use is newer; upgrade protoc-gen-protoflow",
                UNKNOWN_OPTION,
            )

    def merged(self, *levels: Leaves) -> Leaves:
        """Returns the values of several levels; later levels override earlier ones."""
        found = {name: leaf for leaves in levels for name, leaf in leaves.items()}
        self._problems_of_backoff(found)
        return found

    def _walk(
        self, policy: Message, place: Location, level: int, prefix: str
    ) -> Iterator[tuple[str, Leaf]]:
        self.unknown(policy, place)
        for field, value in policy.ListFields():
            name = prefix + field.name
            location = place.at(field.number)
            if field.message_type is None:
                if name == "dead_letter.topic":
                    found = value_rules.dead_letter_problems(name, value, is_shared=level < 2)
                    self._problems.extend(location, found, DEAD_LETTER_TOPIC)
                if leaf := self._scalar(field, name, value, location, level):
                    yield name, leaf
            elif field.message_type.full_name == "google.protobuf.Duration":
                seconds = self._duration(name, value, location)
                if seconds is not None:
                    yield name, Leaf(seconds, number_text(seconds), location, level)
            else:
                yield from self._walk(value, location, level, f"{name}.")

    def _scalar(
        self, field: FieldDescriptor, name: str, value: float | str, place: Location, level: int
    ) -> Leaf | None:
        if field.enum_type is not None:
            text = self._enum(field, int(value), place)
            return Leaf(text, text, place, level) if text else None
        if rule := RULES.get(name):
            self._problems.extend(
                place, rule(name, value), NAME_RULE if isinstance(value, str) else OPTION_VALUE
            )
        text = literal(value) if isinstance(value, str) else number_text(value)
        return Leaf(value, text, place, level)

    def _enum(self, field: FieldDescriptor, number: int, place: Location) -> str | None:
        enum = cast("EnumDescriptor", field.enum_type)
        zero = enum.values_by_number[0].name
        choices = ", ".join(value.name for value in enum.values if value.number)
        known = enum.values_by_number.get(number)
        if known is None:
            self._problems.add(
                place,
                f"value {number} of {field.name} is not known to this plugin: the options.proto "
                "in use is newer; upgrade protoc-gen-protoflow",
                UNKNOWN_OPTION,
            )
            return None
        if not number:
            self._problems.add(
                place,
                f"{field.name} is {zero}, which is not allowed; use {choices}, or remove it",
                OPTION_VALUE,
            )
            return None
        return f"_pf.{enum.name}.{known.name.removeprefix(zero.removesuffix('UNSPECIFIED'))}"

    def _duration(self, name: str, value: Duration, place: Location) -> float | None:
        problems = list(value_rules.duration_problems(name, value.seconds, value.nanos))
        self._problems.extend(place, problems, OPTION_VALUE)
        return None if problems else value.seconds + value.nanos / 1_000_000_000

    def _problems_of_backoff(self, leaves: Leaves) -> None:
        first, longest = leaves.get("retry.initial_backoff"), leaves.get("retry.max_backoff")
        if first and longest and float(first.value) > float(longest.value):
            # The later level gets the error, because the earlier values were valid.
            self._problems.add(
                max(first, longest, key=lambda leaf: leaf.level).place,
                f"retry.initial_backoff is {first.value:g} s, more than retry.max_backoff, "
                f"{longest.value:g} s; lower the first or raise the second",
                OPTION_VALUE,
            )


def number_text(value: float) -> str:
    """Returns a number in the format of black."""
    return repr(value).replace("e+", "e")
