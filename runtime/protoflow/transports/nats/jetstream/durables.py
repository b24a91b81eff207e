"""Existing durables: they are compared, and changed in place if this is safe.

The settings of a durable depend on options and on the ordering of its group: the durable of an
ordered group also reads its replays. The server changes settings in place. It changes the ordering
only while no process requests messages, because delivery to all processes and to one at a time must
not mix. Unsettled messages do no harm: an ordered shard opens when one process holds all of them,
so they must fit into the window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.nats.jetstream.api import API, JSON
from protoflow.transports.nats.names import is_replays

_CHANGEABLE = ("ack_wait", "max_ack_pending")
_ORDERING = ("priority_policy", "priority_groups", "priority_timeout")
_FILTER = ("filter_subject", "filter_subjects")


async def adapt(
    api: API,
    settings: SubscriptionSettings,
    stream: str,
    wanted: JSON,
    found: JSON,
    *,
    adapts: bool,
) -> list[str]:
    """Changes a durable in place if this is safe and allowed; otherwise returns the problem."""
    name = f"consumer {wanted['durable_name']} of stream {stream}"
    # `start` applies to a group without a position, but this one has a position.
    compared = {key: value for key, value in wanted.items() if key != "deliver_policy"}
    compared, present = _normal(compared), _normal(found["config"])
    subjects = compared["filter_subjects"] = _with_replays(wanted, found["config"])
    different = [key for key in compared if not _same(key, compared[key], present)]
    if not different:
        return []
    may_change = {*_CHANGEABLE, *_ORDERING}
    if _plain(subjects) == _plain(present["filter_subjects"]):
        may_change.add("filter_subjects")
    fixed = [key for key in different if key not in may_change]
    if fixed or not adapts:
        return differences(name, compared, present, "nats consumer edit")
    if _changes_ordering(compared, present) and (problem := _under_way(compared, found)):
        text = (
            f"{name}: the ordering of {settings.name} becomes {settings.ordering.value}, and "
            f"{problem}: let the old version settle its messages, stop every process of the "
            "group,"
            " and start again"
        )
        return [text]
    kept = {k: v for k, v in found["config"].items() if k not in (*_ORDERING, *_FILTER)}
    changed = {key: value for key, value in wanted.items() if key in _CHANGEABLE + _ORDERING}
    config = {**kept, **changed, **filter_of(subjects)}
    await api.create_consumer(stream, config, "update")
    return []


def filter_of(subjects: Sequence[str]) -> JSON:
    """Returns the filter settings of a consumer; servers before 2.10 allow only one subject."""
    if len(subjects) == 1:
        return {"filter_subject": subjects[0]}
    return {"filter_subjects": [*subjects]}


def subjects_of(config: JSON) -> list[str]:
    """Returns the subjects that a consumer reads, the topic's own subject first."""
    subjects = config.get("filter_subjects") or [config.get("filter_subject", "")]
    return sorted(subjects, key=is_replays)


def _with_replays(wanted: JSON, found: JSON) -> list[str]:
    """Returns the subjects to read. A group that was ordered before still reads its replays,
    because some may wait."""
    subjects = subjects_of(wanted)
    return [*subjects, *filter(is_replays, {*subjects_of(found)} - {*subjects})]


def _plain(subjects: Sequence[str]) -> list[str]:
    return [subject for subject in subjects if not is_replays(subject)]


def _normal(config: JSON) -> JSON:
    """Returns a consumer's settings, including the server's defaults."""
    return {
        **{key: value for key, value in config.items() if key not in _FILTER},
        "filter_subjects": subjects_of(config),
        "priority_policy": config.get("priority_policy") or "none",
        "priority_groups": config.get("priority_groups") or [],
    }


def _changes_ordering(wanted: JSON, found: JSON) -> bool:
    """Whether delivery changes between all processes and one process at a time."""
    if wanted["priority_policy"] != found["priority_policy"]:
        return True
    # Servers without pinned consumers: one message at a time.
    return (wanted["max_ack_pending"] == 1) is not (found.get("max_ack_pending") == 1)


def _under_way(wanted: JSON, found: Mapping[str, Any]) -> str:
    """Returns why the ordering cannot change now; empty if it can."""
    lent, waiting = found.get("num_ack_pending", 0), found.get("num_waiting", 0)
    if waiting:
        return f"requests of running processes wait there: {waiting}"
    window = wanted["max_ack_pending"]
    if wanted["priority_policy"] != "none" and lent > window:
        return f"{lent} of its messages are unsettled, more than ordered_window ({window}) holds"
    return ""


def differences(name: str, wanted: JSON, found: JSON, heal: str) -> list[str]:
    """Yields the differences, each with its fix."""
    return [
        f"{name}: {key} is {found.get(key)!r}, not {wanted[key]!r}; change the option, or the"
        f" server with {heal}"
        for key in wanted
        if not _same(key, wanted[key], found)
    ]


def _same(key: str, wanted: object, found: JSON) -> bool:
    if key in ("subjects", "filter_subjects") and isinstance(wanted, list):
        return sorted(wanted) == sorted(found.get(key) or ())
    return bool(wanted == found.get(key, 0 if key == "max_age" else None))
