"""Dead letters: list, count, show, export.

Payloads, keys and foreign metadata are only shown with `http_payloads`: they may hold sensitive
data.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from typing import Any

from protoflow import wire
from protoflow.dead_letters.decoding import decoded
from protoflow.errors import DeadLetterNotFoundError, ProtoflowError
from protoflow.stats.dead_letters import timestamp
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.web.api.dead_letter_requests import (
    FILTER,
    PAGE,
    Page,
    Selection,
    cursor_of,
    page_of,
    selection_of,
)
from protoflow.web.api.metadata import key_of, metadata_of
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import NDJSON, Problem, Response, as_json, encoded

_SHOWN = {
    "type": wire.CE_TYPE,
    "source": wire.CE_SOURCE,
    "original_topic": wire.PF_ORIGINAL_TOPIC,
    "original_partition": wire.PF_ORIGINAL_SHARD,
    "original_offset": wire.PF_ORIGINAL_POSITION,
    "group": wire.PF_GROUP,
    "handler": wire.PF_HANDLER,
    "error_class": wire.PF_ERROR_CLASS,
    "error_type": wire.PF_ERROR_TYPE,
    "error_message": wire.PF_ERROR_MESSAGE,
    "correlation_id": wire.CORRELATION_ID,
    "traceparent": wire.TRACEPARENT,
}
_PORTION = 100
#: The highest count of a summary; some brokers read all dead letters to find matching ones.
_MOST_COUNTED = 10_000


async def topics(host: Host, request: Request) -> Response:
    """Every dead-letter topic of the handlers, with its counters."""
    request.given(frozenset())
    await host.reporter.refresh()
    return as_json({"topics": topics_of(host)})


def topics_of(host: Host) -> list[dict[str, Any]]:
    """Returns the dead-letter topics with their counters, as of the last refresh."""
    return [
        {
            "topic": topic,
            "waiting": one.current,
            "received": one.received,
            "replayed": one.replayed,
            "purged": one.purged,
            "oldest_at": timestamp(one.oldest_at),
            "newest_at": timestamp(one.newest_at),
        }
        for topic, one in sorted(host.reporter.host.counters.dead_letters.topics.items())
    ]


async def list_(host: Host, request: Request) -> Response:
    """A page of dead letters, topic by topic, the oldest of a topic first."""
    page = page_of(host, request.given(PAGE))
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    async for topic, record in records_of(host, page):
        if len(rows) == page.limit:
            cursor = cursor_of(rows[-1]["topic"], rows[-1]["position"])
            break
        rows.append(shown(topic, record))
    return as_json({"dead_letters": rows, "next_cursor": cursor})


async def summary(host: Host, request: Request) -> Response:
    """The number of matching dead letters, by handler and error."""
    selection = selection_of(host, request.given(FILTER))
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    matched, complete = 0, True
    async for _topic, record in records_of(host, all_of(selection)):
        if matched == _MOST_COUNTED:
            complete = False
            break
        matched += 1
        metadata = record.message.metadata
        handler, error = metadata.get(wire.PF_HANDLER, ""), metadata.get(wire.PF_ERROR_TYPE, "")
        group = groups.setdefault(
            (handler, error),
            {"handler": handler, "error_type": error, "count": 0, "first_at": None},
        )
        group["count"] += 1
        time = timestamp(record.time)
        group["first_at"] = group["first_at"] or time
        group["last_at"] = time
    largest = sorted(groups.values(), key=lambda group: -group["count"])
    return as_json({"matched": matched, "complete": complete, "groups": largest})


async def show(host: Host, request: Request) -> Response:
    """One dead letter; with `payload=true` its payload without sensitive fields."""
    given = request.given(frozenset({"topic", "payload"}))
    payloads = wants_payloads(host, given.pop("payload", None))
    topic, record = await found(host, selection_of(host, given), request.parameters["id"])
    return as_json(_full(host, topic, record, payloads))


async def export(host: Host, request: Request) -> Response:
    """All matching dead letters, one JSON object a line."""
    given = request.given(FILTER | {"payload"})
    payloads = wants_payloads(host, given.pop("payload", None))
    selection = selection_of(host, given)

    async def lines() -> AsyncIterator[bytes]:
        try:
            async for topic, record in records_of(host, all_of(selection)):
                row = _full(host, topic, record, payloads)
                yield encoded(row) + b"\n"
        # the status is already sent, so the last line reports the error
        except ProtoflowError as error:
            yield encoded({"error": str(error)}) + b"\n"

    return Response(
        stream=lines(),
        content_type=NDJSON,
        headers={"Content-Disposition": 'attachment; filename="dead-letters.ndjson"'},
    )


async def found(host: Host, selection: Selection, id: str) -> tuple[str, DeadLetterRecord]:
    """Returns the dead letter of an id, and its topic. Raises Problem."""
    for topic in selection.topics:
        try:
            return topic, await host.dead_letters.show(topic, id)
        except DeadLetterNotFoundError:
            continue
    places = ", ".join(selection.topics) or "no topic: no handler has dead letters"
    raise Problem(404, f"no dead letter {id!r:.200} in {places}")


def shown(topic: str, record: DeadLetterRecord) -> dict[str, Any]:
    """Returns a dead letter as JSON, without payload and key."""
    message = record.message
    return {
        "id": message.id,
        "topic": topic,
        "position": record.position,
        "dead_lettered_at": timestamp(record.time),
        "size": len(message.payload or b""),
        "attempts": _number(message.metadata.get(wire.PF_ATTEMPT, "")),
        **{name: message.metadata.get(header) for name, header in _SHOWN.items()},
    }


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _full(host: Host, topic: str, record: DeadLetterRecord, payloads: bool) -> dict[str, Any]:
    message = record.message
    row = shown(topic, record) | {"metadata": metadata_of(host, message)}
    if not payloads:
        return row
    payload = decoded(message, host.messages().get)
    return row | {"key": key_of(host, message), "payload": payload}


def wants_payloads(host: Host, given: str | None) -> bool:
    """Whether the request asks for payloads. Raises Problem if they are not allowed."""
    if given not in (None, "true", "false"):
        raise Problem(400, "payload is true or false")
    if given == "true" and not host.config.http_payloads:
        raise Problem(403, "payloads are not shown; set http_payloads to show them")
    return given == "true"


def all_of(selection: Selection) -> Page:
    """Returns the first page for reading a whole selection."""
    return Page(selection=selection, limit=_PORTION, after="")


async def records_of(host: Host, page: Page) -> AsyncIterator[tuple[str, DeadLetterRecord]]:
    """Yields the dead letters of a page and those after it, with their topics."""
    after = page.after
    for topic in page.selection.topics:
        for portion in itertools.count():
            try:
                records = await host.dead_letters.list(
                    topic, limit=min(_PORTION, page.limit + 1), after=after,
                    filter=page.selection.filter,
                )  # fmt: skip
            except ValueError as error:
                if portion or not page.after or isinstance(error, ProtoflowError):
                    raise
                raise Problem(400, f"cursor: {error}") from None
            for record in records:
                yield topic, record
            if not records:
                break
            after = records[-1].position
        after = ""
