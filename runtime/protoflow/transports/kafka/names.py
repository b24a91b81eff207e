"""Kafka's names: topics, the retry topics of a group, what a name may look like."""

from __future__ import annotations

import re

from protoflow import naming

LIMIT = 249
_VALID = re.compile(r"[A-Za-z0-9._-]{1,249}")


def physical(topic: str) -> str:
    """The topic at the broker."""
    return naming.fit(topic, LIMIT)


def is_valid(name: str) -> bool:
    """Whether Kafka takes this as the name of a topic."""
    return _VALID.fullmatch(name) is not None and name not in (".", "..")


def seconds(step: float) -> str:
    """A rung of the ladder as it stands in names: `5`, `0.5`."""
    return str(int(step)) if step == int(step) else f"{step:f}".rstrip("0")


def retry_topic(topic: str, group: str, step: float) -> str:
    """Where a group's messages wait for `step` seconds; 0 is for replays."""
    return naming.fit(f"{topic}.{group}.retry.{seconds(step)}", LIMIT)
