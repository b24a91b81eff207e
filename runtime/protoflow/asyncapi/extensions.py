"""What AsyncAPI has no fields for: policies, under `x-protoflow`, and as AsyncAPI may have them.

`x-retry` and `x-deadLetter` have the form of the objects `retry` and `deadLetter` that
https://github.com/asyncapi/spec/pull/1236 proposes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from protoflow.asyncapi import channels
from protoflow.asyncapi.deployment import Consumer
from protoflow.contract.policy import ResolvedRetry
from protoflow.contract.spec import BATCH_MESSAGES, BATCH_WAIT, Effects, MethodSpec, OnExhausted


def policy(method: MethodSpec, consumer: Consumer, dead_letters: str | None) -> dict[str, Any]:
    """`x-protoflow` of an operation that consumes."""
    found = consumer.policy
    said: dict[str, Any] = {
        "group": consumer.group,
        "ordering": found.ordering.name,
        "concurrency": found.concurrency,
        "retry": _retry(found.retry),
        "onExhausted": found.on_exhausted.name,
        "unhandled": found.unhandled.name,
        "start": found.start.name,
    }
    if found.timeout is not None:
        said["timeout"] = duration(found.timeout)
    if dead_letters is not None:
        said["deadLetter"] = channels.reference(dead_letters)
    if found.atomic:
        said["atomic"] = True
    if method.broadcast:
        said["broadcast"] = True
    if method.effects is Effects.EXACTLY_ONCE:
        said["effects"] = method.effects.name
    if method.batched:
        said["batch"] = {
            "maxMessages": method.batch.max_messages or BATCH_MESSAGES,
            "maxWait": duration(method.batch.max_wait or BATCH_WAIT),
        }
    return said


def recovery(
    method: MethodSpec, consumer: Consumer, *, waiting: str, dead_letters: str | None
) -> dict[str, Any]:
    """`x-retry` and `x-deadLetter` of an operation that consumes.

    Args:
        method: the method.
        consumer: the method as it is deployed.
        waiting: the key of the channel that retries come from.
        dead_letters: the key of the channel of its dead letters, if there is one.
    """
    said: dict[str, Any] = {}
    outcome, attempts = consumer.policy.on_exhausted, consumer.policy.retry.max_attempts
    # A message that blocks its lane is tried for ever, which the proposal cannot say.
    if attempts > 1 and outcome is not OnExhausted.BLOCK:
        said["x-retry"] = {
            **_route(waiting, method),
            "maxAttempts": attempts - 1,
            "strategy": _strategy(consumer.policy.retry),
        }
    if dead_letters is not None and outcome is OnExhausted.DEAD_LETTER:
        said["x-deadLetter"] = _route(dead_letters, method)
    return said


def duration(seconds: float) -> str:
    """Seconds as they are written in settings: `30s`, `0.5s`."""
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{seconds:f}".rstrip("0") + "s"


def _retry(retry: ResolvedRetry) -> dict[str, Any]:
    said: dict[str, Any] = {
        "maxAttempts": retry.max_attempts,
        "initial": duration(retry.initial_backoff),
        "multiplier": _plain(retry.backoff_multiplier),
        "max": duration(retry.max_backoff),
        "jitter": _plain(retry.jitter),
    }
    if retry.max_elapsed is not None:
        said["maxElapsed"] = duration(retry.max_elapsed)
    return said


def _strategy(retry: ResolvedRetry) -> Mapping[str, Any]:
    if retry.backoff_multiplier == 1:
        return {"type": "fixed", "delaySeconds": _whole(retry.initial_backoff)}
    return {
        "type": "exponential",
        "initialDelaySeconds": _whole(retry.initial_backoff),
        "multiplier": _plain(retry.backoff_multiplier),
        "maxDelaySeconds": _whole(retry.max_backoff),
    }


def _route(key: str, method: MethodSpec) -> dict[str, Any]:
    return {
        "channel": channels.reference(key),
        "messages": channels.message_references(key, [method.input]),
    }


def _whole(seconds: float) -> int:
    """The proposal knows whole seconds only: none is shorter than the policy's."""
    return math.ceil(seconds)


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number
