"""Values of options: numbers and times within a useful range."""

from __future__ import annotations

import datetime
import re
import time
from typing import Any

import click

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Finite(click.FloatRange):
    """A finite number within a range: neither nan nor inf, and at most a century of seconds."""

    _MOST = 100 * 366 * 86400.0

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Returns the number; raises a usage error for an invalid one."""
        found = super().convert(value, param, ctx)
        if not found <= self._MOST:
            self.fail(f"{value} is too large, or not a number.", param, ctx)
        return found


def time_of(text: str) -> float:
    """Returns the seconds since the epoch of a time in ISO 8601. Raises ValueError."""
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from None


def moment_of(text: str) -> float:
    """Returns the seconds since the epoch of a time or an age. Raises BadParameter."""
    age = _duration_of(text)
    if age is not None:
        return time.time() - age
    try:
        return time_of(text)
    except ValueError:
        raise click.BadParameter(f"{text}: write an ISO 8601 time, or an age such as 90m") from None


def seconds_of(text: str) -> float:
    """Returns the seconds of a duration such as 90m. Raises BadParameter."""
    found = _duration_of(text)
    if found is None:
        raise click.BadParameter(f"{text}: write a duration such as 30s, 90m, 1h or 2d")
    return found


def _duration_of(text: str) -> float | None:
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])", text)
    return None if match is None else float(match[1]) * _UNITS[match[2]]
