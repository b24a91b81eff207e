"""Rules on single values: each gives what is wrong with one, and the mend."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_VARIABLE = r"\{[a-z][a-z0-9_]*\}"
_PLAIN = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_MAX_TOPIC = 200
_MAX_DURATION = 315_576_000_000  # what google.protobuf.Duration allows

#: The variables that stand for the consumed topic and the group; only in dead_letter.topic.
DEAD_LETTER_VARIABLES = ("topic", "group")
#: Where dead letters go unless an option says another topic.
DEFAULT_DEAD_LETTER = "{topic}.{group}.dead"


def topic_problems(what: str, topic: str, *, dead_letter: bool = False) -> Iterator[str]:
    """What is wrong with a topic, prefix included, or with the name of a group."""
    if not topic:
        yield f"{what} is empty; give it a name or remove the option"
        return
    yield from length_problems(what, topic)
    yield from variable_problems(what, topic, dead_letter=dead_letter)
    rest = re.sub(_VARIABLE, "x", topic) if "{" in topic else topic
    if not _PLAIN.issuperset(rest):
        yield (
            f"{what} is {topic!r}; use letters, digits, '.', '_', '-' and {{variables}} "
            "of lowercase letters, digits and '_'"
        )
    elif "" in rest.split("."):
        yield f"{what} is {topic!r}; a segment between dots is empty: remove a dot"


def length_problems(what: str, topic: str) -> Iterator[str]:
    """Whether a topic is too long."""
    if len(topic) > _MAX_TOPIC:
        yield f"{what} has {len(topic)} characters; use at most {_MAX_TOPIC}"


def dead_letter_problems(what: str, topic: str, *, is_shared: bool) -> Iterator[str]:
    """What is wrong with a dead-letter topic, which many subscriptions may share."""
    yield from topic_problems(what, topic, dead_letter=True)
    missing = [f"{{{name}}}" for name in DEAD_LETTER_VARIABLES if f"{{{name}}}" not in topic]
    if is_shared and missing:
        yield (
            f"{what} lacks {' and '.join(missing)}, without which the failures of one handler "
            f"reach another; write for example {DEFAULT_DEAD_LETTER}"
        )


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
    if not -999_999_999 <= nanos <= 999_999_999 or abs(seconds) > _MAX_DURATION:
        yield (
            f"{what} is out of range; use at most {_MAX_DURATION} seconds "
            "and less than a thousand million nanos"
        )
    elif seconds * nanos < 0:
        yield f"{what} has seconds and nanos of different signs; give both the same sign"
    elif seconds < 0 or nanos < 0:
        yield f"{what} is negative; use more than 0"
    elif seconds == nanos == 0:
        yield f"{what} is 0; use more than 0 or remove it"


def _at_least_one(what: str, value: float) -> Iterator[str]:
    if not 1 <= value < float("inf"):
        yield f"{what} is {value}; use at least 1"


def _share(what: str, value: float) -> Iterator[str]:
    if not 0 <= value <= 1:
        yield f"{what} is {value}; use a share from 0 to 1"


#: The rules for numbers, by the path of the option.
NUMBER_RULES: dict[str, Callable[[str, float], Iterator[str]]] = {
    "concurrency": _at_least_one,
    "max_messages": _at_least_one,
    "retry.max_attempts": _at_least_one,
    "retry.backoff_multiplier": _at_least_one,
    "retry.jitter": _share,
}
