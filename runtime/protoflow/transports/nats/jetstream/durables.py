"""Durables that are there already: compared, and changed in place where that is safe.

A durable has settings that follow from options and from the ordering of its group: that of an
ordered group reads its replays, too. The server changes them in place; an ordering only while no
process asks for messages, for what goes to all processes and what goes to one at a time must not
mix. What is lent or was given back does no harm: an ordered shard opens when all of it is in one
hand, so it must fit into the window.
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
    """Changes a durable in place where that is safe and allowed; else what is wrong with it."""
    name = f"consumer {wanted['durable_name']} of stream {stream}"
    # `start` is for a group without position: this one has one.
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
            f"{name}: the ordering of {settings.name} becomes {settings.ordering.value}, and"
            f" {problem}: let the old version settle what it has, stop every process of the group,"
            " and start again"
        )
        return [text]
    kept = {k: v for k, v in found["config"].items() if k not in (*_ORDERING, *_FILTER)}
    changed = {key: value for key, value in wanted.items() if key in _CHANGEABLE + _ORDERING}
    config = {**kept, **changed, **filter_of(subjects)}
    await api.create_consumer(stream, config, "update")
    return []


def filter_of(subjects: Sequence[str]) -> JSON:
    """The settings of a consumer of these subjects; servers before 2.10 know only one."""
    if len(subjects) == 1:
        return {"filter_subject": subjects[0]}
    return {"filter_subjects": [*subjects]}


def subjects_of(config: JSON) -> list[str]:
    """What a consumer reads, the topic's own subject first."""
    subjects = config.get("filter_subjects") or [config.get("filter_subject", "")]
    return sorted(subjects, key=is_replays)


def _with_replays(wanted: JSON, found: JSON) -> list[str]:
    """What it is to read. A group that was ordered once goes on listening for its replays, for
    some may wait."""
    subjects = subjects_of(wanted)
    return [*subjects, *filter(is_replays, {*subjects_of(found)} - {*subjects})]


def _plain(subjects: Sequence[str]) -> list[str]:
    return [subject for subject in subjects if not is_replays(subject)]


def _normal(config: JSON) -> JSON:
    """A consumer's settings, with the server's defaults."""
    return {
        **{key: value for key, value in config.items() if key not in _FILTER},
        "filter_subjects": subjects_of(config),
        "priority_policy": config.get("priority_policy") or "none",
        "priority_groups": config.get("priority_groups") or [],
    }


def _changes_ordering(wanted: JSON, found: JSON) -> bool:
    """Whether messages went to all processes and are to go to one, or the other way."""
    if wanted["priority_policy"] != found["priority_policy"]:
        return True
    # Servers without pins: one message at a time.
    return (wanted["max_ack_pending"] == 1) is not (found.get("max_ack_pending") == 1)


def _under_way(wanted: JSON, found: Mapping[str, Any]) -> str:
    """Why the ordering cannot change now; empty: it can."""
    lent, waiting = found.get("num_ack_pending", 0), found.get("num_waiting", 0)
    if waiting:
        return f"requests of running processes wait there: {waiting}"
    window = wanted["max_ack_pending"]
    if wanted["priority_policy"] != "none" and lent > window:
        return f"{lent} of its messages are under way, more than ordered_window ({window}) holds"
    return ""


def differences(name: str, wanted: JSON, found: JSON, heal: str) -> list[str]:
    """What differs, each with the way to fix it."""
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
