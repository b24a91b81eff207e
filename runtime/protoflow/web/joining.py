"""Joins the answers of processes: counters are summed, and common values appear once."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

#: Values that are the same in every process.
_SAME = frozenset({"policy", "policy_origins", "window_seconds", "seconds"})
#: Values that cannot be summed, or that belong to the broker: the largest is shown.
_LARGEST = frozenset(
    {"p50", "p95", "p99", "p50_ns", "p95_ns", "p99_ns", "last_ns", "last_queue_depth",
     "estimated_lag_millis", "waiting"}
)  # fmt: skip
_STATUSES = ("degraded", "unknown", "healthy")


def processes(answers: Sequence[Any]) -> Any:
    """Returns the processes of all workers."""
    return {"processes": [process for answer in answers for process in answer["processes"]]}


def handlers(answers: Sequence[Any]) -> Any:
    """Joins handlers by name."""
    return {"handlers": _by("name", [answer["handlers"] for answer in answers], handler)}


def handler(rows: Sequence[Any]) -> Any:
    """Joins one handler."""
    joined = _joined("", rows)
    joined["latency_seconds"]["average"] = joined["run_seconds"] / max(1, joined["runs"])
    return joined


def infos(answers: Sequence[Any]) -> Any:
    """Joins handlers in the Go runtime's format, by name."""
    return _by("name", answers, _info)


def topics(answers: Sequence[Any]) -> Any:
    """Joins dead-letter topics by name."""
    rows = [answer["topics"] for answer in answers]
    return {"topics": _by("topic", rows, lambda found: _joined("", found))}


def snapshot(answers: Sequence[Any]) -> Any:
    """Joins all live data of the dashboard."""
    return {
        **answers[0], **processes(answers), **handlers(answers), **topics(answers),
        "time": max(answer["time"] for answer in answers),
    }  # fmt: skip


#: The functions by the value of `Route.across`.
JOIN: Final[Mapping[str, Callable[[Sequence[Any]], Any]]] = {
    "all": processes,
    "handlers": handlers,
    "handler": handler,
    "infos": infos,
    "topics": topics,
    "snapshot": snapshot,
}


def _info(rows: Sequence[Any]) -> Any:
    joined = _joined("", rows)
    stats = joined["stats"]
    runs = max(1, stats["attempts"])
    stats["latency"]["average_ns"] = stats["total_processing_time_ns"] // runs
    return joined


def _by(
    key: str, answers: Sequence[Sequence[Any]], join: Callable[[Sequence[Any]], Any]
) -> list[Any]:
    """Joins rows with the same value of a key, in the order of their first occurrence."""
    rows: dict[Any, list[Any]] = {}
    for answer in answers:
        for row in answer:
            rows.setdefault(row[key], []).append(row)
    return [join(found) for found in rows.values()]


def _joined(name: str, values: Sequence[Any]) -> Any:
    """Joins the values of one name; objects are joined member by member."""
    first = values[0]
    if name in _SAME:
        return first
    if isinstance(first, dict):
        return {key: _joined(key, [value[key] for value in values]) for key in first}
    if isinstance(first, list):
        return _joined_lists(name, values)
    present = [value for value in values if value is not None]
    if isinstance(first, int | float) and not isinstance(first, bool):
        return max(present) if name in _LARGEST else sum(present)
    if name == "state":
        return first if len(set(values)) == 1 else "mixed"
    if name == "status":
        return min(values, key=_STATUSES.index)
    if name.endswith(("_at", "last_checked")):
        return max(present, default=None)
    return next((value for value in values if value), first)


def _joined_lists(name: str, values: Sequence[Any]) -> list[Any]:
    if name == "problems":
        return list(dict.fromkeys(problem for value in values for problem in value))
    if name == "recent_errors":
        return sorted(itertools.chain(*values), key=lambda one: str(one["at"]), reverse=True)[:10]
    if name == "histogram":
        return [_joined("", bins) for bins in zip(*values, strict=True)]
    if name == "dependencies":
        return _by("name", values, lambda found: _joined("", found))
    return list(values[0])
