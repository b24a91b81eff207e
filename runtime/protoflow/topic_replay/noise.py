"""Noise: values that every run makes anew, so that a difference in them says nothing."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Final

from protoflow import ids

#: Headers that name the trace of a run.
_TRACE: Final = frozenset({"metadata.traceparent", "metadata.tracestate"})
#: The time of a value may differ from this process's by this many seconds.
_SLACK: Final = 1.0
_INDEX: Final = re.compile(r"\[[^\]]*\]")
_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{6,}")
#: Units of times that are numbers: seconds, milliseconds, microseconds, nanoseconds.
_UNITS: Final = (1.0, 1e3, 1e6, 1e9)


class Noise:
    """Decides which differences are noise.

    Noise by default: trace headers; output ids that the runtime derives from the handler's name;
    and times and time-ordered ids that both versions made while the replay ran. An old due date
    that is computed wrongly is no such time, so it is reported.

    Args:
        masks: paths to ignore, such as `total`, `lines.price`, `shop.v1.OrderBilled.total`,
            `OrderBilled.total` or `metadata.x-host`. A path includes everything beneath it.
    """

    def __init__(self, masks: Iterable[str] = ()) -> None:
        self._masks = tuple(masks)
        self._began = time.time() - _SLACK

    def is_masked(self, kind: str, path: str) -> bool:
        """Whether an option masks a field of a message type."""
        plain = _INDEX.sub("", path)
        names = (plain, f"{kind}.{plain}", f"{kind.rpartition('.')[2]}.{plain}")
        return any(
            name == mask or name.startswith((f"{mask}.", f"{mask}["))
            for mask in self._masks
            for name in names
        )

    def is_noise(self, path: str, old: Any, new: Any) -> bool:
        """Whether two different values are made anew by every run; `path` is "" in the payload."""
        if path in _TRACE:
            return True
        if path == "id" and all(_is_ulid(value) for value in (old, new)):
            return True
        return self._is_recent(old) and self._is_recent(new)

    def _is_recent(self, value: Any) -> bool:
        now = time.time() + _SLACK
        return any(self._began <= moment <= now for moment in _moments(value))


def plain_error(text: str) -> str:
    """Returns an error text without addresses of objects, which differ in every run."""
    return _ADDRESS.sub("0x...", text)


def _is_ulid(value: Any) -> bool:
    return isinstance(value, str) and ids.time_of(value) is not None


def _moments(value: Any) -> Iterator[float]:
    """Yields the times that a value may mean, in seconds since the epoch."""
    if isinstance(value, bool):
        return
    if isinstance(value, int | float):
        for unit in _UNITS:
            yield value / unit
    elif isinstance(value, str) and 10 <= len(value) <= 40:
        if (moment := ids.time_of(value)) is not None:
            yield moment
        elif value.isascii() and value.isdigit():
            yield from _moments(int(value))
        else:
            yield from _parsed(value)


def _parsed(text: str) -> Iterator[float]:
    with contextlib.suppress(ValueError, OverflowError):
        yield datetime.datetime.fromisoformat(text).astimezone(datetime.UTC).timestamp()
    try:
        found = uuid.UUID(text)
    except ValueError:
        return
    if found.version == 7:
        yield (found.int >> 80) / 1e3
    elif found.version == 1:
        yield found.time / 1e7 - 12_219_292_800
