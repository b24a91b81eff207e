"""Pause, resume and drain: each acts on this process, and on whole subscriptions."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any

from protoflow import __version__
from protoflow.scheduling.scheduler import Scheduler
from protoflow.stats.dead_letters import timestamp
from protoflow.web.api.operators import as_operator
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Problem, Response, as_json

_log = logging.getLogger("protoflow.web")


async def processes(host: Host, request: Request) -> Response:
    """This process and its subscriptions."""
    request.given(frozenset())
    return _answer(host)


async def pause(host: Host, request: Request) -> Response:
    """Pauses: nothing is fetched or started until `resume`; running handlers continue."""
    return _act(host, request, "pause", Scheduler.pause)


async def resume(host: Host, request: Request) -> Response:
    """Ends `pause`."""
    return _act(host, request, "resume", Scheduler.resume)


async def drain(host: Host, request: Request) -> Response:
    """Drains: running handlers finish, other messages go back, and the group is left."""
    seconds = host.config.shutdown_timeout
    return _act(host, request, "drain", lambda scheduler: scheduler.drain(seconds))


def _act(host: Host, request: Request, verb: str, act: Callable[[Scheduler], object]) -> Response:
    request.given(frozenset())
    name = request.parameters.get("name")
    chosen: Sequence[Scheduler] = host.schedulers if name is None else [host.named(name)]
    left = [one for one in chosen if one.state in ("draining", "drained")]
    if left and verb != "drain":
        raise Problem(
            409, f"{left[0].settings.name} is {left[0].state} in this process; it consumes again"
            " when the process is started again",
        )  # fmt: skip
    with as_operator(request):
        for scheduler in chosen:
            act(scheduler)
            if host.journal is not None:
                host.journal.record_action(verb, scheduler.settings.name)
    _log.info(
        "an operator changed the service",
        extra={
            "action": verb, "subscriptions": [one.settings.name for one in chosen],
            "role": request.role.label, "peer": request.peer,
        },
    )  # fmt: skip
    return _answer(host, chosen, 202 if verb == "drain" else 200)


def _answer(
    host: Host, schedulers: Sequence[Scheduler] | None = None, status: int = 200
) -> Response:
    return as_json({"processes": [process_of(host, schedulers)]}, status)


def process_of(host: Host, schedulers: Sequence[Scheduler] | None = None) -> dict[str, Any]:
    """Returns this process, and those of its subscriptions that are given; by default all."""
    health = host.health()
    rows = [_row(one) for one in (host.schedulers if schedulers is None else schedulers)]
    return {
        "name": host.config.client_name,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "version": __version__,
        "started_at": timestamp(host.started_at),
        "transport": host.config.url.safe,
        "namespace": host.config.namespace,
        "ready": health.ready,
        "problems": health.problems,
        "subscriptions": rows,
    }


def _row(scheduler: Scheduler) -> dict[str, Any]:
    return {
        "name": scheduler.settings.name,
        "topic": scheduler.settings.topic,
        "group": scheduler.settings.group,
        "handlers": [route.spec.name for route in scheduler.router.all],
        "state": scheduler.state,
        "in_flight": scheduler.in_flight.count,
        "running": scheduler.running,
        "waiting_retries": scheduler.waiting,
    }
