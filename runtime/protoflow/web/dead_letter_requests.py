"""What a request for dead letters asks for: a page, a filter, a body."""

from __future__ import annotations

import asyncio
import datetime
import math
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from protoflow.codecs.json_text import loads
from protoflow.transport.kit.dead_letter_selection import DeadLetterFilter
from protoflow.web.deadlines import PATIENCE

_LARGEST_PAGE = 1000
_TEXTS = ("error_class", "error_type", "handler", "message_type", "key", "group")
_TIMES = ("since", "until")


def page_of(query: Mapping[str, str]) -> tuple[int, str, DeadLetterFilter | None]:
    """Returns the size of a page, the position before it, and its filter. Raises ValueError."""
    given = dict(query)
    limit = given.pop("limit", "100")
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 10):
        raise ValueError("limit is a number of dead letters")
    after = given.pop("after", "")
    return min(_LARGEST_PAGE, max(1, int(limit))), after, filter_of(given)


def filter_of(query: Mapping[str, str]) -> DeadLetterFilter | None:
    """Returns the filter of a query; None without one. Raises ValueError."""
    if unknown := sorted({*query} - {*_TEXTS, *_TIMES}):
        known = ", ".join((*_TEXTS, *_TIMES))
        raise ValueError(f"unknown parameter {unknown[0]!r:.100}; a filter has {known}")
    if not query:
        return None
    conditions: dict[str, Any] = {  # Any: text or a time
        name: _seconds(name, value) if name in _TIMES else value for name, value in query.items()
    }
    return DeadLetterFilter(**conditions)


def _seconds(name: str, text: str) -> float:
    """A time as RFC 3339 or in seconds since the epoch."""
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = datetime.datetime.fromisoformat(text)
            seconds = moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()
        except (ValueError, OverflowError):
            seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError(f"{name} is a time, 2026-01-31T12:00:00Z, or seconds since the epoch")
    return seconds


async def body_of(request: web.Request) -> dict[str, Any]:  # Any: JSON
    """Returns the body of a replay or purge. Raises ValueError."""
    body = b""
    if request.can_read_body:
        async with asyncio.timeout(PATIENCE):
            body = await request.read()
    try:
        content = loads(body) if body.strip() else {}
    except RecursionError:
        raise ValueError("the body nests too deeply") from None
    except ValueError:
        raise ValueError("the body is not JSON") from None
    if not isinstance(content, dict) or not content.keys() <= {"ids", "all", "to_origin"}:
        raise ValueError('the body is {"ids": [...], "all": false, "to_origin": false}')
    ids = content.get("ids")
    if ids is not None and not (
        isinstance(ids, list) and all(isinstance(item, str) for item in ids)
    ):
        raise ValueError("ids is a list of message ids")
    for name in ("all", "to_origin"):
        if not isinstance(content.get(name, False), bool):
            raise ValueError(f"{name} is true or false")
    if ids is not None and content.get("all"):
        raise ValueError("give ids or all, not both")
    return content
