"""Converts raw settings to typed values, and merges layers value by value."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar

from protoflow.config.named_transports import (
    HandlerPolicies,
    RouteSettings,
    registry_of,
    route_of,
    table_of,
    transports_of,
)
from protoflow.config.options import convert, did_you_mean
from protoflow.config.url import TransportURL
from protoflow.contract.policy import merge
from protoflow.contract.spec import DeadLetterPolicy, DeliveryPolicy, RetryPolicy
from protoflow.errors import ConfigError

V = TypeVar("V")

#: The databases that can contain an outbox.
OUTBOX_SCHEMES: Final = ("postgresql", "postgresql+tls", "sqlite")


def env_form(handler: str) -> str:
    """Returns the name of a handler as used in an environment variable, in lower case."""
    return re.sub(r"[^a-z0-9]+", "_", handler.lower())


#: Settings whose keys are names of the contract.
BY_NAME: Final = ("handlers", "topics", "groups")


def renamed(table: dict[str, Any], beneath: Mapping[str, Any]) -> dict[str, Any]:
    """Returns settings by name of the contract, under the names that weaker layers use."""
    forms = {env_form(name): name for name in beneath}
    return {forms.get(env_form(name), name): value for name, value in table.items()}


def named(settings: Mapping[str, V], name: str) -> V | None:
    """Returns the setting of a name, or of its form in environment variables."""
    found = settings.get(name)
    if found is None and settings:
        form = env_form(name)
        found = next((value for key, value in settings.items() if key == form), None)
    return found


def unknown(table: str, settings: Iterable[str], known: Iterable[str], what: str) -> list[str]:
    """Returns an error text for each name in a table that is not known."""
    names = set(known)
    forms = {env_form(name) for name in names}
    there = ", ".join(sorted(names)) or "none"
    return [
        f"{table}.{name!r}: no such {what}{did_you_mean(name, names)}; there are {there}"
        for name in settings
        if name not in names and name not in forms
    ]


def without_transports(handlers: Any, transports: dict[str, str]) -> Any:
    """Returns the tables of handlers without `transport`, which is no part of a policy and is
    added to `transports`."""
    if not isinstance(handlers, Mapping):
        return handlers  # the conversion reports it
    policies: dict[str, Any] = {}
    if isinstance(handlers, HandlerPolicies):  # of another Config
        transports.update(handlers.transports)
    for handler, policy in handlers.items():
        if isinstance(policy, Mapping) and "transport" in policy:
            form = env_form(handler)
            key = next((one for one in transports if env_form(one) == form), handler)
            transports[key] = str(policy["transport"])
            policy = {name: value for name, value in policy.items() if name != "transport"}
        policies[handler] = policy
    return policies


def convert_setting(name: str, hint: Any, value: Any, mistakes: list[str]) -> Any:
    """Returns the typed value of a setting. Raises ValueError; collects further mistakes."""
    if name == "transport":
        try:
            return value if isinstance(value, TransportURL) else TransportURL.parse(str(value))
        except ConfigError as error:
            mistakes.extend(error.problems)
            return TransportURL(scheme="memory")
    if name == "outbox":
        return _outbox(value, mistakes)
    if hint is DeliveryPolicy:
        return _policy(DeliveryPolicy, name, value, mistakes)
    if name == "handlers":
        return {
            handler: _policy(DeliveryPolicy, f"handlers.{handler!r}", policy, mistakes)
            for handler, policy in _mapping(value).items()
        }
    if name == "transports":
        return {one: table_of(f"{name}.{one}", table) for one, table in _mapping(value).items()}
    if name == "schema_registry":
        return table_of(name, value) if value else {}
    if name in ("topics", "groups"):
        return {one: route_of(name, one, table, mistakes) for one, table in _mapping(value).items()}
    if typing.get_origin(hint) is Mapping or hint is Mapping:
        items = _mapping(value)
        return items if name == "transport_options" else {k: str(v) for k, v in items.items()}
    return convert(hint, value.total_seconds() if isinstance(value, timedelta) else value)


def _outbox(value: Any, mistakes: list[str]) -> TransportURL | None:
    if not value:
        return None
    try:
        url = value if isinstance(value, TransportURL) else TransportURL.parse(str(value))
    except ConfigError as error:
        mistakes.extend(text.replace("transport:", "outbox:", 1) for text in error.problems)
        return None
    if url.scheme not in OUTBOX_SCHEMES:
        mistakes.append(
            f"outbox: {url.scheme}:// is not a database; known databases: "
            f"{', '.join(OUTBOX_SCHEMES)}"
        )
    return url


def completed(name: str, value: Any, by_handler: Mapping[str, str], mistakes: list[str]) -> Any:
    """Returns the final value of a setting that is merged as a table; collects mistakes.

    Args:
        name: the setting.
        value: merged from all sources.
        by_handler: the transports that the tables of handlers name.
        mistakes: all mistakes so far.
    """
    if name == "handlers":
        return HandlerPolicies(value, by_handler)
    if name == "transports":
        return transports_of(value, mistakes)
    if name == "schema_registry":
        return registry_of(value or {}, mistakes)
    return value


def laid_over(base: Any, override: Any) -> Any:
    """Merges tables and policies value by value; replaces all other values."""
    if isinstance(base, DeliveryPolicy):
        return merge(base, override)
    if isinstance(base, RouteSettings):
        return RouteSettings(
            transport=override.transport or base.transport,
            source=override.source.over(base.source) if override.source else base.source,
            schema_registry={**base.schema_registry, **override.schema_registry},
        )
    if isinstance(base, Mapping):
        return {**base, **{k: laid_over(base.get(k), v) for k, v in override.items()}}
    return override


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError("must be a table")
    return dict(value)


def _policy(kind: Any, where: str, value: Any, mistakes: list[str]) -> Any:
    """Returns a policy from a table; a policy is returned unchanged."""
    if isinstance(value, kind):
        return value
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, item in _mapping(value).items():
        hint = hints.get(name)
        if hint is None:
            hint_ = did_you_mean(name, hints) or f"; known settings: {', '.join(hints)}"
            mistakes.append(f"{where}.{name}: no such setting{hint_}")
        elif hint in (RetryPolicy, DeadLetterPolicy):
            try:
                values[name] = _policy(hint, f"{where}.{name}", item, mistakes)
            except ValueError as error:
                mistakes.append(f"{where}.{name}: {error}")
        else:
            try:
                item = item.total_seconds() if isinstance(item, timedelta) else item
                values[name] = convert(_inner(hint), item)
            except ValueError as error:
                mistakes.append(f"{where}.{name}: {error}")
    return kind(**values)


def _inner(hint: Any) -> Any:
    if isinstance(hint, types.UnionType):
        return next(part for part in typing.get_args(hint) if part is not type(None))
    return hint
