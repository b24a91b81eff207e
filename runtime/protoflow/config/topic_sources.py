"""The settings `[topics."...".source]`: topics that are consumed from places of other programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

from protoflow.config.options import did_you_mean
from protoflow.contract.topic_source import TopicSource

_FIELDS: Final = tuple(item.name for item in fields(TopicSource))


def source_of(where: str, value: Any, mistakes: list[str]) -> TopicSource | None:
    """Returns the source of a topic from a name or a table; collects mistakes."""
    if value is None or isinstance(value, TopicSource):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if not isinstance(value, Mapping):
        mistakes.append(f"{where}: must be a name, or a table with name")
        return None
    for name in value.keys() - {*_FIELDS}:
        hint = did_you_mean(name, _FIELDS) or f"; known are {', '.join(_FIELDS)}"
        mistakes.append(f"{where}.{name}: no such setting{hint}")
    known = {name: str(value[name]) for name in _FIELDS if name in value}
    mistakes += (
        f"{where}.{name}: has control characters"
        for name, text in known.items()
        if not text.isprintable()
    )
    return TopicSource(**{"name": "", **known})  # another layer may set the name
