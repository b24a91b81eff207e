"""Handlers: their state and statistics, here and in the Go runtime's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from protoflow.scheduling.job import Route as HandlerRoute
from protoflow.scheduling.scheduler import Scheduler
from protoflow.stats.dead_letters import timestamp
from protoflow.stats.handlers import HandlerStats
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Problem, Response, as_json

_NANOSECONDS = 1e9


async def infos(host: Host, request: Request) -> Response:
    """Every handler and its state, as the Go runtime's `HandlerInfo`."""
    request.given(frozenset())
    await host.reporter.refresh()
    return as_json([info.as_dict() for info in host.reporter.handlers()])


async def handlers(host: Host, request: Request) -> Response:
    """Every handler with its state, policy and statistics."""
    request.given(frozenset())
    return as_json({"handlers": rows_of(host)})


async def handler(host: Host, request: Request) -> Response:
    """One handler."""
    request.given(frozenset())
    name = request.parameters["name"]
    for row in rows_of(host):
        if row["name"] == name:
            return as_json(row)
    raise Problem(404, f"no handler {name!r:.200} runs in this process")


def rows_of(host: Host) -> list[dict[str, Any]]:
    """Returns the handlers that run, in the order of their subscriptions."""
    return [
        _row(host, scheduler, route)
        for scheduler in host.schedulers
        for route in scheduler.router.all
    ]


def _row(host: Host, scheduler: Scheduler, route: HandlerRoute) -> dict[str, Any]:
    spec, registration = route.spec, route.registration
    names = [other.spec.name for other in scheduler.router.all]
    return {
        "name": spec.name,
        "types": list(registration.types),
        "topic": spec.topic,
        "group": spec.group,
        "publishes": host.reporter.host.publish_topic(spec),
        "dead_letter_topic": spec.dead_letter_topic,
        "subscription": scheduler.settings.name,
        "shares_subscription_with": [name for name in names if name != spec.name],
        "state": scheduler.state,
        "problems": list(scheduler.problems.values()),
        "policy": _policy(spec.policy),
        "in_flight": scheduler.in_flight.count,
        "in_flight_limit": scheduler.settings.max_in_flight,
        "running": scheduler.running,
        "waiting_retries": scheduler.waiting,
        **_statistics(host, spec.stats),
    }


def _policy(policy: Any) -> dict[str, Any]:
    values = asdict(policy)
    del values["dead_letter_topic"]  # before its variables are filled
    values["demands"] = sorted(values["demands"])
    return values


def _statistics(host: Host, stats: HandlerStats) -> dict[str, Any]:
    clock = host.reporter.clock
    timings, latency = stats.timings, stats.timings.latency()
    last = timings.last_at
    ago = clock.monotonic() - last
    categories: Mapping[str, int] = stats.errors.by_category()
    return {
        "counters": stats.as_dict(),
        "runs": timings.runs,
        "run_seconds": timings.seconds,
        "messages_per_second": timings.throughput(clock.monotonic()).current_rps,
        "latency_seconds": {
            "average": latency.average_ns / _NANOSECONDS,
            "p50": latency.p50_ns / _NANOSECONDS,
            "p95": latency.p95_ns / _NANOSECONDS,
            "p99": latency.p99_ns / _NANOSECONDS,
            "samples": latency.sample_size,
        },
        "histogram": [
            {"seconds": None if bound == float("inf") else bound, "runs": count}
            for bound, count in timings.histogram()
        ],
        "errors": dict(categories),
        "last_error": stats.errors.last_error,
        "last_run_at": timestamp(clock.now() - ago) if last else None,
    }
