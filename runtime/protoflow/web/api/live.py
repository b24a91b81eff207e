"""The live data of the dashboard, and the history of handlers and operators."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, TypeVar

from protoflow.stats.dead_letters import timestamp
from protoflow.web.api.control import process_of
from protoflow.web.api.dead_letters import topics_of
from protoflow.web.api.handlers import summary_of
from protoflow.web.api.operators import operator_of
from protoflow.web.api.service import lag_of
from protoflow.web.host import Host
from protoflow.web.joining import JOIN
from protoflow.web.request import Request
from protoflow.web.response import EVENTS, Problem, Response, as_json

T = TypeVar("T")

_HOUR = 3600.0
_LARGEST_PAGE = 1000
_OFF = "the journal is off: set `journal` to a file to keep a history"


async def snapshot(host: Host, request: Request) -> Response:
    """Processes, handlers, lag and dead letters at this moment."""
    request.given(frozenset())
    return as_json(await taken(host))


async def stream(host: Host, request: Request) -> Response:
    """The snapshot every two seconds, as server-sent events."""
    request.given(frozenset())
    events = host.live.stream(lambda: taken(host), request)
    return Response(stream=events, content_type=EVENTS, headers={"X-Accel-Buffering": "no"})


async def taken(host: Host) -> dict[str, Any]:
    """Returns the current data, and samples it for later viewers."""
    await host.reporter.refresh()
    found = {
        "time": timestamp(time.time()),
        **beat_of(host),
        "lag": lag_of(host),
        "topics": topics_of(host),
    }
    if host.neighbours is not None:
        found = _with_others(host, found)
    host.live.sample(lambda: _measured(found))
    return found


def beat_of(host: Host) -> dict[str, Any]:
    """Returns the data about this process for other processes."""
    return {"processes": [process_of(host)], "handlers": summary_of(host)}


def _with_others(host: Host, found: dict[str, Any]) -> dict[str, Any]:
    """Returns the snapshot joined with the heartbeats of other processes."""
    beats = host.neighbours.beats if host.neighbours is not None else []
    if host.alone:  # data of other processes is better than unknown data here
        seen = {one.get("name") for beat in beats for one in beat["handlers"]}
        own = [one for one in found["handlers"] if one["name"] not in seen]
        found = {**found, "handlers": own}
    for beat in beats:
        other = {"time": found["time"], "topics": [], **beat}
        with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
            # Heartbeats of other versions, or of foreign clients, are left out.
            joined = JOIN["snapshot"]([found, other])
            _measured(joined)  # data that cannot be summed is not a heartbeat
            found = joined
    return found


def _measured(found: dict[str, Any]) -> dict[str, Any]:
    """Returns the values of a snapshot for charts; None is unknown."""
    flights = {one["subscription"]: one["in_flight"] for one in found["handlers"]}
    counters = [one["counters"] for one in found["handlers"]]
    waiting = [one["waiting"] for one in found["lag"] if one["waiting"] is not None]
    oldest = [one["oldest_seconds"] for one in found["lag"] if one["oldest_seconds"] is not None]
    return {
        "in_flight": sum(flights.values()),
        "waiting": sum(waiting) if waiting else None,
        "oldest_seconds": max(oldest) if oldest else None,
        "dead_letters": sum(one["waiting"] for one in found["topics"]),
        **{name: sum(one[name] for one in counters) for name in ("handled", "retried")},
    }


async def history(host: Host, request: Request) -> Response:
    """The last hour: minutes of the journal, and samples taken while a dashboard was open."""
    handler = request.given(frozenset({"handler"})).get("handler")
    since = time.time() - _HOUR

    def read(reader: Any) -> list[dict[str, Any]]:
        return [
            {
                "time": timestamp(one.minute), "handler": one.handler, "runs": one.runs,
                "seconds": one.seconds, **one.counts,
            }
            for one in reader.minutes(since, handler=handler)
        ]  # fmt: skip

    minutes, note = await _journaled(host, read)
    samples = [
        {**one, "time": timestamp(one["time"])}
        for one in tuple(host.live.samples)
        if one["time"] >= since
    ]
    return as_json(
        {"recorded": not note, "note": note, "minutes": minutes or [], "samples": samples}
    )


async def actions(host: Host, request: Request) -> Response:
    """What operators did, the latest first; from the journal."""
    given = request.given(frozenset({"limit"})).get("limit", "100")
    if not (given.isascii() and given.isdecimal() and 0 < int(given[:9]) <= _LARGEST_PAGE):
        raise Problem(400, f"limit is a number from 1 to {_LARGEST_PAGE}")

    def read(reader: Any) -> list[dict[str, Any]]:
        return [
            {
                "time": timestamp(one.time), "action": one.action, "target": one.target,
                "count": one.count, "actor": one.actor, **operator_of(one.detail),
            }
            for one in reader.actions(limit=int(given))
        ]  # fmt: skip

    found, note = await _journaled(host, read)
    return as_json({"recorded": not note, "note": note, "actions": found or []})


async def _journaled(host: Host, read: Callable[[Any], T]) -> tuple[T | None, str]:
    """Returns entries of the journal, or the reason why there are none."""
    if not host.config.journal:
        return None, _OFF
    from protoflow.journal import JournalError, JournalReader

    def opened() -> T:
        with JournalReader(host.config.journal) as reader:
            return read(reader)

    try:
        return await asyncio.to_thread(opened), ""
    except JournalError as error:
        return None, f"journal {host.config.journal}: {error}"
