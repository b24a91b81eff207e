"""Handlers: their state and statistics, here and in the Go runtime's shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from protoflow.contract.policy import BUILT_IN, leaves
from protoflow.registrations.subscription_plan import HandlerPlan
from protoflow.scheduling.job import Route as HandlerRoute
from protoflow.scheduling.scheduler import Scheduler
from protoflow.stats.dead_letters import timestamp
from protoflow.stats.handlers import HandlerStats
from protoflow.web.api.policy_levels import levels
from protoflow.web.host import Host
from protoflow.web.request import Request
from protoflow.web.response import Problem, Response, as_json

_NANOSECONDS = 1e9
_CONTRACT = "the contract"


async def infos(host: Host, request: Request) -> Response:
    """Every handler and its state, in the form of the Go runtime's `HandlerInfo`."""
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
    """Returns the running handlers, in the order of their subscriptions. If none runs here, returns
    those of the contract."""
    plans = host.handlers()
    if host.alone:
        unknown: dict[str, Any] = {"histogram": [], "recent_errors": []}
        return [_planned_row(host, plan) | _planned(host, plan) | unknown for plan in plans]
    by_name = {plan.registration.name: plan for plan in plans}
    return [
        _row(host, scheduler, route)
        | _planned(host, by_name[route.spec.name])
        | _details(route.spec.stats)
        for scheduler in host.schedulers
        for route in scheduler.router.all
    ]


def summary_of(host: Host) -> list[dict[str, Any]]:
    """Returns `rows_of` without fields that do not change or that only one page shows."""
    if host.alone:
        return [_planned_row(host, plan) for plan in host.handlers()]
    return [
        _row(host, scheduler, route)
        for scheduler in host.schedulers
        for route in scheduler.router.all
    ]


def _planned_row(host: Host, plan: HandlerPlan) -> dict[str, Any]:
    """Returns the row of a handler that runs elsewhere: its numbers are unknown."""
    unknown = ("in_flight", "running", "waiting_retries", "runs", "run_seconds",
               "messages_per_second", "latency_seconds", "last_run_at")  # fmt: skip
    name = plan.registration.name
    subscription = f"{plan.topic}/{plan.group}"
    return {
        "name": name,
        "topic": plan.topic,
        "group": plan.group,
        "publishes": host.publish_topic(plan) or "",
        "dead_letter_topic": plan.dead_letter_topic,
        "subscription": subscription,
        "shares_subscription_with": [
            other.registration.name
            for other in host.handlers()
            if f"{other.topic}/{other.group}" == subscription and other.registration.name != name
        ],
        "state": "elsewhere",
        "problems": [],
        "in_flight_limit": None,
        **dict.fromkeys(unknown),
        **{name: {} for name in ("counters", "errors")},
        "last_error": "",
    }


def _planned(host: Host, plan: HandlerPlan) -> dict[str, Any]:
    """Returns what a handler takes, and its policy with the source of each value."""
    registration = plan.registration
    layers = (
        ("built in", BUILT_IN),
        ("defaults of the config", host.config.defaults),
        (_CONTRACT, registration.delivery),
        ("the config of this handler", host.config.policy_of(registration.name)),
    )
    origins = {leaf: origin for origin, policy in layers for leaf in leaves(policy)}
    level = levels(registration.name)
    for leaf, origin in origins.items():
        if origin == _CONTRACT and leaf in level:
            origins[leaf] = f"the proto's {level[leaf]}"
    return {
        "types": list(registration.types),
        "policy": _policy(plan.policy),
        "policy_origins": origins,
    }


def _row(host: Host, scheduler: Scheduler, route: HandlerRoute) -> dict[str, Any]:
    spec = route.spec
    names = [other.spec.name for other in scheduler.router.all]
    return {
        "name": spec.name,
        "topic": spec.topic,
        "group": spec.group,
        "publishes": host.reporter.host.publish_topic(spec),
        "dead_letter_topic": spec.dead_letter_topic,
        "subscription": scheduler.settings.name,
        "shares_subscription_with": [name for name in names if name != spec.name],
        "state": scheduler.state,
        "problems": list(scheduler.problems.values()),
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
        "errors": dict(categories),
        "last_error": stats.recent_errors[-1][1] if stats.recent_errors else "",
        "last_run_at": timestamp(clock.now() - ago) if last else None,
    }


def _details(stats: HandlerStats) -> dict[str, Any]:
    """How long runs took, and the last errors."""
    return {
        "histogram": [
            {"seconds": None if bound == float("inf") else bound, "runs": count}
            for bound, count in stats.timings.histogram()
        ],
        "recent_errors": [
            {"at": timestamp(at), "error": text} for at, text in reversed(stats.recent_errors)
        ],
    }
