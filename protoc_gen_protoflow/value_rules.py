"""Rules for single values; each rule yields the errors of a value, with the fix."""

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

#: Variables for the consumed topic and the group, which only dead_letter.topic may contain.
DEAD_LETTER_VARIABLES = ("topic", "group")
#: The dead-letter topic if no option sets one.
DEFAULT_DEAD_LETTER = "{topic}..{group}..dead"


def topic_problems(what: str, topic: str, *, dead_letter: bool = False) -> Iterator[str]:
    """Yields the errors of a topic with its prefix, or of the name of a group."""
    if not topic:
        yield f"{what} is empty; give it a name or remove the option"
        return
    yield from length_problems(what, topic)
    yield from variable_problems(what, topic, dead_letter=dead_letter)
    rest = re.sub(_VARIABLE, "x", topic) if "{" in topic else topic
    # Two dots separate the parts of a dead-letter topic; other topics may not contain them.
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
            f"{what} is {prefix!r}, which is put before each topic unchanged: 'orders' becomes "
            f"{prefix + 'orders'!r}; end it with '.', '-' or '_'"
        )


def doubled_problems(what: str, topic: str, prefix: str) -> Iterator[str]:
    """Yields an error if a topic already begins with the prefix of the file."""
    if prefix and topic.startswith(prefix):
        yield (
            f"{what} is {topic!r}, and topic_prefix is put before it: {prefix + topic!r}; "
            f"write {topic.removeprefix(prefix)!r}"
        )


def length_problems(what: str, topic: str) -> Iterator[str]:
    """Yields an error if a topic is too long."""
    if len(topic) > _MAX_TOPIC:
        yield f"{what} has {len(topic)} characters; use at most {_MAX_TOPIC}"


def dead_letter_problems(what: str, topic: str, *, is_shared: bool) -> Iterator[str]:
    """Yields the errors of a dead-letter topic, which several subscriptions may share."""
    yield from topic_problems(what, topic, dead_letter=True)
    missing = _lacking(topic)
    for found in re.findall(_VARIABLE, topic):
        for name in DEAD_LETTER_VARIABLES:
            if found in (f"{{{name}s}}", f"{{{name}_name}}", f"{{consumer_{name}}}"):
                yield f"{what} is {topic!r}; write {{{name}}} for {found}"
    if is_shared and missing:
        yield (
            f"{what} lacks {' and '.join(missing)}, so that dead letters of one handler "
            f"reach another handler; write for example {DEFAULT_DEAD_LETTER}"
        )


def _lacking(topic: str) -> list[str]:
    variables = [f"{{{name}}}" for name in DEAD_LETTER_VARIABLES]
    return [variable for variable in variables if variable not in topic]


def variable_problems(what: str, text: str, *, dead_letter: bool = False) -> Iterator[str]:
    """Yields the errors of variables without meaning in this option."""
    if not dead_letter:
        for name in DEAD_LETTER_VARIABLES:
            if f"{{{name}}}" in text:
                yield (
                    f"{what} is {text!r}; {{{name}}} is only allowed in "
                    "dead_letter.topic; give the variable another name"
                )


def text_problems(what: str, text: str) -> Iterator[str]:
    """Yields the errors of free text such as a type or a source."""
    if not text:
        yield f"{what} is empty; give it a value or remove the option"
    elif not text.isprintable() or text != text.strip():
        yield f"{what} is {text!r}; remove spaces at its ends and characters that do not print"


def source_problems(what: str, text: str) -> Iterator[str]:
    """Yields the errors of a source, which may contain variables."""
    yield from text_problems(what, text)
    yield from variable_problems(what, text)
    if re.search(r"[{}]", re.sub(_VARIABLE, "", text)):
        yield (f"{what} is {text!r}; use {{name}} with lowercase letters, digits and '_'")


def duration_problems(what: str, seconds: int, nanos: int) -> Iterator[str]:
    """Yields the errors of a duration."""
    if not -999_999_999 <= nanos <= 999_999_999:
        yield f"{what} has {nanos} nanos; use fewer than 1,000,000,000"
    elif seconds * nanos < 0:
        yield f"{what} has seconds and nanos with different signs; give both the same sign"
    elif seconds < 0 or nanos < 0:
        yield f"{what} is negative; use more than 0"
    elif seconds >= _YEAR:
        yield f"{what} is {seconds} s, more than a year; use less (`seconds` counts seconds)"
    elif seconds == nanos == 0:
        yield f"{what} is 0; use more than 0 or remove it"


def number_problems(limit: Limit, what: str, value: float) -> Iterator[str]:
    """Yields an error if a number is outside of the limit of its option."""
    if not limit.allows(value):
        yield f"{what} is {value}; {limit.fix}"
