"""The fields of `Config`: built-in value, documentation and limits in one line each."""

from __future__ import annotations

import math
from dataclasses import field, fields
from typing import Any, Final

from protoflow.v1.policy_fields import Limit

POSITIVE: Final = Limit(math.ulp(0.0), math.inf, "must be positive")
NOT_NEGATIVE: Final = Limit(0, math.inf, "must not be negative")
PORT: Final = Limit(0, 65535, "must be 0 to 65535")
#: A smaller limit would leave almost no space beside the tables.
JOURNAL_SIZE: Final = Limit(1024 * 1024, math.inf, "must be at least 1048576")


class Default:
    """Marks an argument that was not given, and holds the built-in value."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def setting(default: Any, help: str, limit: Limit | None = None) -> Any:
    """A field with its built-in value, its line in the documentation, and the numbers it takes."""
    return field(default=Default(default), metadata={"help": help, "limit": limit})


def out_of_range(settings: Any) -> list[str]:
    """Returns an error text for each number that its limit does not allow."""
    return [
        f"{one.name}: {limit.fix}"
        for one in fields(settings)
        if (limit := one.metadata.get("limit"))
        and (value := getattr(settings, one.name)) is not None
        and not limit.allows(value)
    ]
