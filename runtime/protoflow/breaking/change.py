"""A difference between two versions of a contract, and its verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from protoflow.breaking.rule import Consequence, Rule
from protoflow.breaking.rules import RULES
from protoflow.dataclass_record import dataclass_record


@dataclass_record
class Change:
    """A difference between two versions.

    Attributes:
        kind: the name of its rule.
        subjects: the methods, messages or settings that differ.
        old: the old value in words.
        new: the new value in words.
        place: `file:line`; "" for settings.
    """

    kind: str
    subjects: tuple[str, ...]
    old: str
    new: str
    place: str

    @property
    def rule(self) -> Rule:
        """Returns the rule for this kind."""
        return RULES[self.kind]

    def consequence(self, scheme: str) -> Consequence:
        """The consequence on a transport; "" means any transport."""
        return self.rule.consequence(scheme)


def change(kind: str, subject: str, old: Any, new: Any, place: str) -> Change:
    """Makes a change; values are converted to text."""
    return Change(kind=kind, subjects=(subject,), old=_words(old), new=_words(new), place=place)


def merged(changes: list[Change]) -> list[Change]:
    """Returns the changes, worst first; equal changes of several methods are merged."""
    found: dict[tuple[str, str, str, str], Change] = {}
    for one in changes:
        key = (one.kind, one.old, one.new, one.place or one.subjects[0])
        same = found.get(key)
        subjects = (*(same.subjects if same else ()), *one.subjects)
        found[key] = replace(one, subjects=tuple(dict.fromkeys(subjects)))
    return list(found.values())


def _words(value: Any) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g} s"
    if isinstance(value, tuple | list | set | frozenset):
        return ", ".join(_words(item) for item in value) or "none"
    return str(value)
