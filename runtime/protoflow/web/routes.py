"""The route table: all routes of the HTTP API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from protoflow.web.api import (
    control,
    dead_letter_changes,
    dead_letters,
    handlers,
    health,
    live,
    messages,
    metrics,
    publish,
    service,
    session,
)
from protoflow.web.dashboard import pages
from protoflow.web.host import Host
from protoflow.web.openapi import document
from protoflow.web.request import Request, Role
from protoflow.web.response import EVENTS, HTML, NDJSON, Response, as_json
from protoflow.web.route import CHANGING, Function, Route

V1: Final = "/api/v1"

_TEXT = {"type": "string"}
_TIME = {"type": "string", "description": "2026-01-31T12:00:00Z, or seconds since the epoch"}
_FLAG = {"type": "string", "enum": ["true", "false"]}
_FILTER: Mapping[str, Any] = {
    "topic": {**_TEXT, "description": "a dead-letter topic"},
    "handler": {**_TEXT, "description": "the full name of the handler that failed"},
    "group": {**_TEXT, "description": "the group that failed, namespace included"},
    "error": {**_TEXT, "description": "the type of the error, ValueError"},
    "error_class": {**_TEXT, "description": "the class of the cause, exhausted"},
    "type": {**_TEXT, "description": "the CloudEvents type"},
    "key": {**_TEXT, "description": "the key of the message"},
    "since": _TIME,
    "until": _TIME,
}
_PAGE: Mapping[str, Any] = {
    **_FILTER,
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    "cursor": {**_TEXT, "description": "next_cursor of the page before"},
}


async def _openapi(_host: Host, request: Request) -> Response:
    """This API as OpenAPI 3.1."""
    request.given(frozenset())
    return as_json(document(ROUTES))


def _get(path: str, function: Function, schema: str, role: Role = Role.READ, **more: Any) -> Route:
    return _route("GET", path, function, schema, role, **{"query": {}} | more)


def _post(
    path: str, function: Function, schema: str, role: Role = Role.OPERATE, **more: Any
) -> Route:
    return _route("POST", path, function, schema, role, **{"query": {}} | more)


def _route(
    method: str, path: str, function: Function, schema: str, role: Role, **more: Any
) -> Route:
    # The summary is that of the function, so it describes the called code.
    summary = (function.__doc__ or "").splitlines()[0]
    return Route(
        method=method, path=path, role=role, function=function, summary=summary, schema=schema,
        **more,
    )  # fmt: skip


def _controls(verb: str, function: Function, status: int = 200) -> tuple[Route, Route]:
    """Returns the routes for all subscriptions of the process, and for that of one handler."""
    paths = (f"{V1}/{verb}", f"{V1}/handlers/{{name}}/{verb}")
    one, other = (_post(path, function, "Processes", status=status, across="all") for path in paths)
    return one, other


_DEAD = f"{V1}/dead-letters"

LOGOUT: Final = _post(f"{V1}/logout", session.logout, "Session", role=Role.NONE)
SNAPSHOT: Final = _get(f"{V1}/snapshot", live.snapshot, "Snapshot", across="snapshot")


def _page(path: str) -> Route:
    return _get(path, pages.shell, "Text", Role.NONE, content_type=HTML)


ROUTES: Final[tuple[Route, ...]] = (
    _get("/healthz", health.live, "Status", Role.NONE, across="probe"),
    _get("/readyz", health.ready, "Status", Role.NONE, across="probe"),
    _get("/metrics", metrics.metrics, "Text", content_type="text/plain", across="metrics"),
    _get("/api/handlers", handlers.infos, "HandlerInfos", across="infos"),
    _get("/api/asyncapi", service.asyncapi, "Document"),
    *map(_page, pages.PATHS),
    _get("/assets/{name}", pages.asset, "Text", Role.NONE, content_type="*/*"),
    _get(f"{V1}/openapi.json", _openapi, "Document"),
    _get(f"{V1}/session", session.session, "Session", Role.NONE),
    _post(f"{V1}/login", session.login, "Session", role=Role.NONE, body="Login"),
    LOGOUT,
    SNAPSHOT,
    _get(f"{V1}/stream", live.stream, "Text", content_type=EVENTS),
    _get(
        f"{V1}/history", live.history, "History",
        query={"handler": {**_TEXT, "description": "the full name of a handler"}},
    ),
    _get(
        f"{V1}/actions", live.actions, "Actions",
        query={"limit": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}},
    ),
    _get(f"{V1}/processes", control.processes, "Processes", across="all"),
    _get(f"{V1}/handlers", handlers.handlers, "Handlers", across="handlers"),
    _get(f"{V1}/handlers/{{name}}", handlers.handler, "Handler", across="handler"),
    *_controls("pause", control.pause),
    *_controls("resume", control.resume),
    *_controls("drain", control.drain, 202),
    _get(f"{V1}/lag", service.lag, "Lag"),
    _get(f"{V1}/topology", service.topology, "Topology"),
    _get(f"{V1}/contract", service.contract, "Contract"),
    # A session's cookie is sent to the paths below /api/v1.
    _get(f"{V1}/asyncapi", service.asyncapi, "Document"),
    _get(f"{V1}/settings", service.settings, "Settings"),
    _get(f"{V1}/messages/{{id}}", messages.message, "Message", query={"since": _TIME}),
    _get(f"{V1}/dead-letter-topics", dead_letters.topics, "DeadLetterTopics", across="topics"),
    _get(_DEAD, dead_letters.list_, "DeadLetters", query=_PAGE),
    _get(f"{_DEAD}/summary", dead_letters.summary, "DeadLetterSummary", query=_FILTER),
    _get(
        f"{_DEAD}/export", dead_letters.export, "DeadLetter", content_type=NDJSON,
        query={**_FILTER, "payload": _FLAG},
    ),
    _get(
        f"{_DEAD}/{{id}}", dead_letters.show, "DeadLetter",
        query={"topic": _FILTER["topic"], "payload": _FLAG},
    ),
    _post(
        f"{_DEAD}/replay", dead_letter_changes.replay, "Changed", body="Replay", seconds=CHANGING
    ),
    _post(
        f"{_DEAD}/purge", dead_letter_changes.purge, "Changed", body="Change", seconds=CHANGING
    ),
    _post(f"{V1}/publish", publish.publish, "Published", body="Publication", status=201),
)  # fmt: skip
