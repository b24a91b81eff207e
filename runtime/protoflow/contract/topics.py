"""Topics and groups: their characters, their variables, and how topics are created."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping

_VARIABLE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,200}")
VALUE = re.compile(r"[A-Za-z0-9_-]+")


class TopologyMode(enum.StrEnum):
    """The treatment of topics, queues and streams at start."""

    CREATE = "create"
    VERIFY = "verify"
    NONE = "none"


def problem(topic: str) -> str | None:
    """Returns the error in a topic or group without variables; None if it is valid."""
    if not _TOPIC.fullmatch(topic):
        return f"{topic!r} is not 1 to 200 characters out of letters, digits, '.', '_' and '-'"
    if any(not segment for segment in topic.split(".")):
        return f"{topic!r} has an empty segment between dots"
    return None


def fill(template: str, variables: Mapping[str, str]) -> tuple[str, list[str]]:
    """Returns the template with variables filled, and the names of missing variables."""
    missing: list[str] = []

    def value(match: re.Match[str]) -> str:
        found = variables.get(match[1])
        if found is None:
            missing.append(match[1])
            return match[0]
        return found

    if "{" not in template:
        return template, missing
    return _VARIABLE.sub(value, template), missing
