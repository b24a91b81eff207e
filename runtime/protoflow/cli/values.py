"""Values of options: numbers and times that can be reckoned with."""

from __future__ import annotations

import datetime
from typing import Any

import click


class Finite(click.FloatRange):
    """A number of a range that is finite: neither nan nor inf, nor more than a century of
    seconds."""

    _MOST = 100 * 366 * 86400.0

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The number; a usage error for what is none."""
        found = super().convert(value, param, ctx)
        if not found <= self._MOST:
            self.fail(f"{value} is too large, or no number.", param, ctx)
        return found


def time_of(text: str) -> float:
    """Seconds since the epoch of a time in ISO 8601. Raises ValueError."""
    try:
        return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from None
