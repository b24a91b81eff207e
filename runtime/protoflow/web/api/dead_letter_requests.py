"""The parts of a request for dead letters: conditions, a page, a body."""

from __future__ import annotations

import base64
import binascii
import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from protoflow.transport.kit.dead_letter_selection import DeadLetterFilter
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Problem

#: The conditions, and their names in a filter.
CONDITIONS = {
    "handler": "handler",
    "group": "group",
    "error": "error_type",
    "error_class": "error_class",
    "type": "message_type",
    "key": "key",
    "since": "since",
    "until": "until",
}
_TIMES = ("since", "until")
LARGEST_PAGE = 1000
#: The allowed members of a filter in a body, and of a query without a page.
FILTER = frozenset({"topic", *CONDITIONS})
PAGE = FILTER | {"limit", "cursor"}
_BODY = frozenset({"ids", "all", "filter", "dry_run"})


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Dead letters of some topics that meet conditions.

    Attributes:
        topics: the dead-letter topics, sorted.
        filter: the conditions; None is no condition.
    """

    topics: tuple[str, ...]
    filter: DeadLetterFilter | None


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of a list: its size, and a position in the first topic after which it starts."""

    selection: Selection
    limit: int
    after: str


@dataclass(frozen=True, kw_only=True)
class Change:
    """The dead letters that a replay or purge changes: these ids, or all of the selection. The
    description is for the journal."""

    selection: Selection
    ids: tuple[str, ...] | None
    dry_run: bool
    to_origin: bool
    reprocess: bool
    description: str


def selection_of(host: Host, given: Mapping[str, Any]) -> Selection:
    """Returns the dead letters that these conditions select. Raises Problem."""
    if wrong := [name for name, value in given.items() if not _is_condition(name, value)]:
        raise Problem(400, f"{wrong[0]} is a text")
    conditions: dict[str, Any] = {  # Any: text or a time
        CONDITIONS[name]: seconds_of(name, value) if name in _TIMES else value
        for name, value in given.items()
        if name != "topic"
    }
    topics = {
        one.dead_letter_topic
        for one in host.handlers()
        if one.dead_letter_topic
        and given.get("handler") in (None, one.registration.name)
        and given.get("group") in (None, one.group)
    }
    if (topic := given.get("topic")) is not None:
        if topic not in host.dead_letters.topics:
            raise Problem(404, f"{topic!r:.200}: no handler has dead letters there")
        topics = {topic}
    return Selection(
        topics=tuple(sorted(topics)),
        filter=DeadLetterFilter(**conditions) if conditions else None,
    )


def page_of(host: Host, given: Mapping[str, str]) -> Page:
    """Returns the page of a query. Raises Problem."""
    conditions = dict(given)
    limit, cursor = conditions.pop("limit", "100"), conditions.pop("cursor", "")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 10 and int(limit) > 0):
        raise Problem(400, f"limit is a number from 1 to {LARGEST_PAGE}")
    selection, after = selection_of(host, conditions), ""
    if cursor:
        topic, after = _position(cursor)
        if topic not in selection.topics:
            raise Problem(400, "cursor is of another list; take next_cursor of a page of this one")
        # Topics are sorted, so topics before that of the cursor are already listed.
        topics = tuple(one for one in selection.topics if one >= topic)
        selection = Selection(topics=topics, filter=selection.filter)
    return Page(selection=selection, limit=min(LARGEST_PAGE, int(limit)), after=after)


def cursor_of(topic: str, position: str) -> str:
    """Returns the cursor that stands for a position in a topic."""
    text = json.dumps([topic, position], ensure_ascii=False).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


async def change_of(host: Host, request: Request, *more: str) -> Change:
    """Returns the change that the body of a replay or purge describes. Raises Problem."""
    request.given(frozenset())
    body = await request.json(_BODY | set(more))
    for name in ("all", "dry_run", *more):
        if not isinstance(body.get(name, False), bool):
            raise Problem(400, f"{name} is true or false")
    ids, filter = body.get("ids"), body.get("filter")
    if ids is not None and not (
        isinstance(ids, list) and ids and all(isinstance(item, str) for item in ids)
    ):
        raise Problem(400, "ids is a list of message ids")
    if filter is not None and not (isinstance(filter, dict) and filter.keys() <= FILTER):
        raise Problem(400, f"filter is an object with some of {', '.join(sorted(FILTER))}")
    if ids is None and not filter and not body.get("all"):
        raise Problem(400, 'name dead letters: {"ids": [...]}, {"filter": {...}} or {"all": true}')
    if body.get("all") and (ids is not None or filter):
        raise Problem(400, "all stands alone; leave out ids and filter")
    return Change(
        selection=selection_of(host, filter or {}),
        ids=None if ids is None else tuple(dict.fromkeys(ids)),
        dry_run=body.get("dry_run", False),
        to_origin=body.get("to_origin", False),
        reprocess=body.get("reprocess", False),
        description=_described(ids, filter),
    )


def _described(ids: Any, filter: Any) -> str:
    if ids is not None:
        return "by id"
    # A key may be sensitive.
    shown = {name: "***" if name == "key" else value for name, value in (filter or {}).items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items()) or "all"


def _is_condition(name: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str) or (name in _TIMES and number)


def _position(cursor: str) -> tuple[str, str]:
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        topic, position = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise Problem(400, "cursor is not the next_cursor of a page") from None
    if not (isinstance(topic, str) and isinstance(position, str)):
        raise Problem(400, "cursor is not the next_cursor of a page")
    return topic, position


def seconds_of(name: str, given: str | float) -> float:
    """Returns a time given as RFC 3339 or in seconds since the epoch. Raises Problem."""
    try:
        seconds = float(given)
    except (ValueError, OverflowError):
        try:
            moment = datetime.datetime.fromisoformat(str(given))
            seconds = moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
        except (ValueError, OverflowError):
            seconds = math.nan
    if not math.isfinite(seconds):
        raise Problem(400, f"{name} is a time, 2026-01-31T12:00:00Z, or seconds since the epoch")
    return seconds
