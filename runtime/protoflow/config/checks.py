"""What is wrong with settings, taken together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protoflow.contract import topics
from protoflow.contract.policy import problems

if TYPE_CHECKING:
    from protoflow.config.settings import Config


def mistakes_in(config: Config) -> list[str]:
    """Every mistake, one sentence each."""
    mistakes: list[str] = []
    if config.namespace and (wrong := topics.problem(config.namespace)):
        mistakes.append(f"namespace: {wrong}")
    mistakes += [
        f"variables.{name}: {value!r} is not letters, digits, '_' and '-'"
        for name, value in config.variables.items()
        if not topics.VALUE.fullmatch(value)
    ]
    policies = [("defaults", config.defaults)]
    policies += [(f"handlers.{name!r}", policy) for name, policy in config.handlers.items()]
    for where, policy in policies:
        mistakes += [f"{where}: {text}" for text in problems(policy)]
    for name in ("lease", "max_hold", "connect_timeout", "max_in_flight_bytes", "sync_threads"):
        if getattr(config, name) <= 0:
            mistakes.append(f"{name}: must be positive")
    for name in (
        "retry_in_place",
        "max_in_flight",
        "rebalance_drain",
        "shutdown_timeout",
        "max_deliveries_margin",
        "gc_threshold",
    ):
        if getattr(config, name) < 0:
            mistakes.append(f"{name}: must not be negative")
    for name in ("source", "client_name"):
        if not getattr(config, name).isprintable():
            mistakes.append(f"{name}: has control characters")
    token = config.http_token.reveal() if config.http_token else ""
    if token != token.strip() or not token.isprintable():
        mistakes.append(
            "http_token: has blanks or line breaks, which no request can send; remove them"
        )
    ladder = config.retry_ladder
    if not ladder or ladder[0] <= 0 or list(ladder) != sorted(set(ladder)):
        mistakes.append("retry_ladder: must be positive and ascending")
    if config.on_lost_position not in ("stop", "earliest", "latest"):
        mistakes.append("on_lost_position: must be one of stop, earliest, latest")
    for name in ("http_port", "metrics_port"):
        if not 0 <= getattr(config, name) <= 65535:
            mistakes.append(f"{name}: must be 0 to 65535")
    if "*" in config.http_cors and not config.http_token:
        mistakes.append(
            "http_cors: '*' lets any page that a browser here shows purge dead letters; set "
            "http_token, or name the origins"
        )
    if topics.problem(config.exchange):
        mistakes.append("exchange: must be letters, digits, '.', '_' and '-'")
    return mistakes
