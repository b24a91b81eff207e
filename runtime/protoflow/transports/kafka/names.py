"""Names of topics and of the retry topics of a group, and which names are valid."""

from __future__ import annotations

import re
from collections.abc import Iterable

from protoflow.contract import names as naming
from protoflow.contract.topic_source import TopicSources

LIMIT = 249
#: The characters that are reserved after topic and group for `..retry.<seconds>`.
_ROOM = 24
_VALID = re.compile(r"[A-Za-z0-9._-]{1,249}")
_RETRY = re.compile(r"\.\.retry\.(\d+(?:\.\d+)?)")


def physical(topic: str) -> str:
    """Returns the name of the topic at the broker."""
    return naming.fit(topic, LIMIT)


def place(topic: str, sources: TopicSources) -> str:
    """Returns the name of a topic, or of its source, at the broker."""
    return sources.place(topic) or physical(topic)


def is_valid(name: str) -> bool:
    """Whether Kafka accepts this name of a topic."""
    return _VALID.fullmatch(name) is not None and name not in (".", "..")


def family(topic: str, group: str) -> str:
    """Returns the prefix of a group's retry topics."""
    return naming.fit(naming.join(topic, group), LIMIT - _ROOM)


def retry_topic(topic: str, group: str, step: float) -> str:
    """Returns the topic where a group's messages wait for `step` seconds; 0 is for replays."""
    return naming.join(family(topic, group), f"retry.{naming.seconds(step)}")


def step_of(name: str, topic: str, group: str) -> float | None:
    """Returns the seconds of a group's retry topic; None if this is not its retry topic."""
    prefix = family(topic, group)
    found = _RETRY.fullmatch(name, len(prefix)) if name.startswith(prefix) else None
    return None if found is None else float(found[1])


def is_retry(name: str) -> bool:
    """Whether this is the retry topic of a group."""
    return _RETRY.search(name) is not None


def clashes(names: Iterable[str]) -> list[tuple[str, str]]:
    """Returns pairs of names that Kafka treats as equal: for Kafka, `.` and `_` are the same."""
    seen: dict[str, str] = {}
    pairs = []
    for name in sorted(set(names)):
        first = seen.setdefault(name.replace(".", "_"), name)
        if first != name:
            pairs.append((first, name))
    return pairs
