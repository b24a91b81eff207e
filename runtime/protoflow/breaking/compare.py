"""Finds all differences between two versions of a contract."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from protoflow.breaking import messages, subscriptions
from protoflow.breaking.change import Change, change, merged
from protoflow.breaking.contract import Contract

#: Seconds for which brokers keep messages by default: seven days.
RETENTION = 604800.0


def compare(
    old: Contract, new: Contract, scheme: str = "", retention: float = RETENTION
) -> list[Change]:
    """Returns the changes from one version to another, the worst first.

    Args:
        old: the version that runs.
        new: the version to be deployed.
        scheme: the scheme of the transport's URL; "" means any transport.
        retention: seconds for which the broker keeps a message.
    """
    pairs = subscriptions.pairs_of(old, new)
    handlers = {before.registration.name: after.registration.name for before, after in pairs}
    found = merged(
        [
            *_settings(old, new),
            *subscriptions.changes(old, new, pairs, retention),
            *messages.changes(old, new, handlers),
        ]
    )
    return sorted(found, key=lambda one: -one.consequence(scheme).verdict.severity)


def _settings(old: Contract, new: Contract) -> Iterator[Change]:
    before, after = old.config, new.config
    if before.namespace != after.namespace:
        yield change("namespace.changed", "namespace", before.namespace, after.namespace, "")
    if before.url.safe != after.url.safe:
        yield change("transport.changed", "transport", before.url.safe, after.url.safe, "")
    shards = (
        _option(before.transport_options, before.url.query),
        _option(after.transport_options, after.url.query),
    )
    if shards[0] != shards[1]:
        yield change("shards.changed", "shards", *shards, "")
    if before.retry_ladder != after.retry_ladder:
        ladders = before.retry_ladder, after.retry_ladder
        yield change("ladder.changed", "retry_ladder", *ladders, "")


def _option(*levels: Mapping[str, object]) -> str:
    """Returns the number of shards of a transport: the URL has priority over its options."""
    return str({name: value for level in levels for name, value in level.items()}.get("shards", 1))
