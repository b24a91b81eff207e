"""Replay and purge: by ids, by a filter, or of all dead letters; with a preview."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

from protoflow.errors import ReplayError
from protoflow.transport.dead_letters import DeadLetterRecord
from protoflow.transport.kit.dead_letter_selection import DeadLetterFilter, not_found
from protoflow.web.api.dead_letter_requests import Change, change_of
from protoflow.web.api.dead_letters import all_of, records_of, shown
from protoflow.web.api.operators import FAILED, as_operator
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Problem, Response, as_json

_log = logging.getLogger("protoflow.web")

_SAMPLES = 5
#: The highest number of left dead letters that a problem names.
_MOST_NAMED = 1000

#: Changes dead letters of a topic; returns how many.
_Act = Callable[[str, Collection[str] | None, DeadLetterFilter | None], Awaitable[int]]


async def replay(host: Host, request: Request) -> Response:
    """Replays dead letters to the group that failed, or with `to_origin` to all groups."""
    change = await change_of(host, request, "to_origin", "reprocess")
    if change.to_origin and change.reprocess:
        raise Problem(400, "reprocess is for the group that failed; leave out to_origin")

    async def act(topic: str, ids: Collection[str] | None, filter: DeadLetterFilter | None) -> int:
        return await host.dead_letters.replay(
            topic, ids, to_origin=change.to_origin, filter=filter, reprocess=change.reprocess
        )

    return await _changed(host, request, change, "replay", act)


async def purge(host: Host, request: Request) -> Response:
    """Deletes dead letters permanently."""
    change = await change_of(host, request)

    async def act(topic: str, ids: Collection[str] | None, filter: DeadLetterFilter | None) -> int:
        return await host.dead_letters.purge(topic, ids, filter=filter)

    return await _changed(host, request, change, "purge", act)


async def _changed(host: Host, request: Request, change: Change, verb: str, act: _Act) -> Response:
    if change.dry_run:
        return as_json(await _preview(host, change))
    chosen = await _by_topic(host, change)
    left: dict[str, str] = {}
    done = left_count = 0
    error: ReplayError | None = None
    for topic, ids in chosen.items():
        try:
            with as_operator(request, change.description):
                done += await act(topic, ids, change.selection.filter)
        except ReplayError as failed:
            done += failed.replayed
            left |= {id: str(reason) for id, reason in failed.left.items()}
            left_count += failed.left_count
            error = failed
            _record_failed(host, request, change, verb, topic, failed)
    _log.info(
        "an operator changed dead letters",
        extra={
            "action": verb, "topics": list(chosen), "done": done, "left": left_count,
            "role": request.role.label, "peer": request.peer,
        },
    )  # fmt: skip
    report = {"matched": done + left_count, "done": done, "failed": left_count}
    if error is None:
        return as_json(report)
    named = dict(list(left.items())[:_MOST_NAMED])
    raise Problem(409, str(error), more=report | {"left": named}, code=error.code)


def _record_failed(
    host: Host, request: Request, change: Change, verb: str, topic: str, error: ReplayError
) -> None:
    if host.journal is not None:
        with as_operator(request, change.description):
            host.journal.record_action(
                verb, topic, count=0, detail=f"{FAILED}{error.left_count} left; {error!s:.300}"
            )


async def _by_topic(host: Host, change: Change) -> dict[str, Collection[str] | None]:
    """Returns the topics to change, each with its ids; None means all. Raises Problem."""
    if change.ids is None:
        return dict.fromkeys(change.selection.topics)
    if len(change.selection.topics) == 1:
        return {change.selection.topics[0]: change.ids}
    chosen: dict[str, set[str]] = {}
    async for topic, record in _chosen(host, change):
        chosen.setdefault(topic, set()).add(record.message.id)
    if missing := set(change.ids).difference(*chosen.values()):
        raise not_found(", ".join(change.selection.topics), missing)
    return dict(chosen)


async def _preview(host: Host, change: Change) -> dict[str, Any]:
    """Returns the preview: the number of affected dead letters, and the first of them."""
    matched = 0
    samples: list[dict[str, Any]] = []
    async for topic, record in _chosen(host, change):
        matched += 1
        if len(samples) < _SAMPLES:
            samples.append(shown(topic, record))
    return {"matched": matched, "done": 0, "failed": 0, "samples": samples}


async def _chosen(host: Host, change: Change) -> AsyncIterator[tuple[str, DeadLetterRecord]]:
    wanted = None if change.ids is None else frozenset(change.ids)
    async for topic, record in records_of(host, all_of(change.selection)):
        if wanted is None or record.message.id in wanted:
            yield topic, record
