"""Probes: whether the process is alive, and whether it is ready."""

from __future__ import annotations

from protoflow.web.host import Host
from protoflow.web.request import Request, Role
from protoflow.web.response import Response, as_json


async def live(host: Host, request: Request) -> Response:
    """200 unless a part of the runtime has died."""
    return _state(host, request, host.health().live)


async def ready(host: Host, request: Request) -> Response:
    """200 while the process consumes: connected, subscribed and not stalled."""
    return _state(host, request, host.health().ready)


def _state(host: Host, request: Request, good: bool) -> Response:
    state: dict[str, object] = {"status": "ok" if good else "failing"}
    if request.role >= Role.READ:  # probes have no token, so they only get the status
        state["problems"] = host.health().problems
    return as_json(state, 200 if good else 503)
