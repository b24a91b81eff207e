"""Rules on single values: each yields the errors of one value, with the fix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from protoflow.v1.policy_fields import Limit

_VARIABLE = r"\{[a-z][a-z0-9_]*\}"
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_MAX_TOPIC = 200
_CHARACTERS = (
    "use letters, digits, '.', '_', '-' and {variables} of lowercase letters, digits and '_'"
)
_YEAR = 366 * 24 * 3600

#: The variables that stand for the consumed topic and the group; only in dead_letter.topic.
DEAD_LETTER_VARIABLES = ("topic", "group")
#: Where dead letters go unless an option says another topic.
DEFAULT_DEAD_LETTER = "{topic}..{group}..dead"


def topic_problems(what: str, topic: str, *, dead_letter: bool = False) -> Iterator[str]:
    """What is wrong with a topic, prefix included, or with the name of a group."""
    if not topic:
        yield f"{what} is empty; give it a name or remove the option"
        return
    yield from length_problems(what, topic)
    yield from variable_problems(what, topic, dead_letter=dead_letter)
    rest = re.sub(_VARIABLE, "x", topic) if "{" in topic else topic
    # Two dots part what has no empty segment: only a name of all its parts may hold them.
    parted = dead_letter and not _lacking(topic)
    if not _PLAIN.issuperset(rest):
        fix = "write variables as {name}, without '$'" if "${" in topic else _CHARACTERS
        yield f"{what} is {topic!r}; {fix}"
    elif "" in (re.sub(r"(?<=[^.])\.\.(?=[^.])", ".", rest) if parted else rest).split("."):
        yield f"{what} is {topic!r}; a segment between dots is empty: remove a dot"


def prefix_problems(what: str, prefix: str) -> Iterator[str]:
    """Yields the errors of a topic prefix; it must end with a separator."""
    found = list(topic_problems(what, prefix and f"{prefix}x"))
    yield from found
    if not found and prefix[-1].isalnum():
        yield (
            f"{what} is {prefix!r}, which goes literally before each topic: 'orders' becomes "
            f"{prefix + 'orders'!r}; end it with '.', '-' or '_'"
        )


def doubled_problems(what: str, topic: str, prefix: str) -> Iterator[str]:
    """Whether a topic is written with the prefix that goes before it anyway."""
    if prefix and topic.startswith(prefix):
        yield (
            f"{what} is {topic!r}, and topic_prefix goes before it: {prefix + topic!r}; "
            f"write {topic.removeprefix(prefix)!r}"
        )


def length_problems(what: str, topic: str) -> Iterator[str]:
    """Whether a topic is too long."""
    if len(topic) > _MAX_TOPIC:
        yield f"{what} has {len(topic)} characters; use at most {_MAX_TOPIC}"


def dead_letter_problems(what: str, topic: str, *, is_shared: bool) -> Iterator[str]:
    """What is wrong with a dead-letter topic, which many subscriptions may share."""
    yield from topic_problems(what, topic, dead_letter=True)
    missing = _lacking(topic)
    for found in re.findall(_VARIABLE, topic):
        for name in DEAD_LETTER_VARIABLES:
            if found in (f"{{{name}s}}", f"{{{name}_name}}", f"{{consumer_{name}}}"):
                yield f"{what} is {topic!r}; write {{{name}}} for {found}"
    if is_shared and missing:
        yield (
            f"{what} lacks {' and '.join(missing)}, without which the failures of one handler "
            f"reach another; write for example {DEFAULT_DEAD_LETTER}"
        )


def _lacking(topic: str) -> list[str]:
    variables = [f"{{{name}}}" for name in DEAD_LETTER_VARIABLES]
    return [variable for variable in variables if variable not in topic]


def variable_problems(what: str, text: str, *, dead_letter: bool = False) -> Iterator[str]:
    """Whether variables are used that have no meaning there."""
    if not dead_letter:
        for name in DEAD_LETTER_VARIABLES:
            if f"{{{name}}}" in text:
                yield (
                    f"{what} is {text!r}; {{{name}}} means something only in "
                    "dead_letter.topic: name the variable otherwise"
                )


def text_problems(what: str, text: str) -> Iterator[str]:
    """What is wrong with free text such as a type or a source."""
    if not text:
        yield f"{what} is empty; give it a value or remove the option"
    elif not text.isprintable() or text != text.strip():
        yield f"{what} is {text!r}; remove spaces at its ends and characters that do not print"


def source_problems(what: str, text: str) -> Iterator[str]:
    """What is wrong with a source, which may hold variables."""
    yield from text_problems(what, text)
    yield from variable_problems(what, text)
    if re.search(r"[{}]", re.sub(_VARIABLE, "", text)):
        yield (
            f"{what} is {text!r}; write variables as {{name}} of lowercase letters, digits and '_'"
        )


def duration_problems(what: str, seconds: int, nanos: int) -> Iterator[str]:
    """What is wrong with a duration."""
    if not -999_999_999 <= nanos <= 999_999_999:
        yield f"{what} has {nanos} nanos; use less than a thousand million of them"
    elif seconds * nanos < 0:
        yield f"{what} has seconds and nanos of different signs; give both the same sign"
    elif seconds < 0 or nanos < 0:
        yield f"{what} is negative; use more than 0"
    elif seconds >= _YEAR:
        yield f"{what} is {seconds} s, more than a year; use less: a Duration counts in seconds"
    elif seconds == nanos == 0:
        yield f"{what} is 0; use more than 0 or remove it"


def number_problems(limit: Limit, what: str, value: float) -> Iterator[str]:
    """Whether a number is outside of the limit of its option."""
    if not limit.allows(value):
        yield f"{what} is {value}; {limit.fix}"
