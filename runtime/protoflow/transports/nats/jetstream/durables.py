"""Durables that are there already: compared, and changed in place where that is safe.

A durable has settings that follow from options and from the ordering of its group. The server
changes them in place; an ordering only while no process asks for messages, for what goes to all
processes and what goes to one at a time must not mix. What is lent or was given back does no harm:
an ordered shard opens when all of it is in one hand, so it must fit into the window.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from protoflow.transport.interface import SubscriptionSettings
from protoflow.transports.nats.jetstream.api import API, JSON

_CHANGEABLE = ("ack_wait", "max_ack_pending")
_ORDERING = ("priority_policy", "priority_groups", "priority_timeout")


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
    compared = {"priority_policy": "none", "priority_groups": [], **compared}
    present = _normal(found["config"])
    different = [key for key in compared if not _same(key, compared[key], present)]
    if not different:
        return []
    fixed = [key for key in different if key not in _CHANGEABLE + _ORDERING]
    if fixed or not adapts:
        return differences(name, compared, present, "nats consumer edit")
    if _changes_ordering(compared, present) and (problem := _under_way(compared, found)):
        text = (
            f"{name}: the ordering of {settings.name} becomes {settings.ordering.value}, and"
            f" {problem}: let the old version settle what it has, stop every process of the group,"
            " and start again"
        )
        return [text]
    config = {key: value for key, value in found["config"].items() if key not in _ORDERING}
    changed = {key: value for key, value in wanted.items() if key in _CHANGEABLE + _ORDERING}
    await api.create_consumer(stream, {**config, **changed}, "update")
    return []


def _normal(config: JSON) -> JSON:
    """A consumer's settings, with the server's defaults."""
    return {
        **config,
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
        return f"{waiting} requests of running processes wait there"
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
    if key == "subjects" and isinstance(wanted, list):
        return sorted(wanted) == sorted(found.get(key) or ())
    return bool(wanted == found.get(key, 0 if key == "max_age" else None))
