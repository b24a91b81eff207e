"""Extensions for facts that AsyncAPI has no fields for, such as policies.

`x-protoflow` holds policies. `x-retry` and `x-deadLetter` have the form of the objects `retry` and
`deadLetter` that https://github.com/asyncapi/spec/pull/1236 proposes.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import Field, fields
from typing import Any

from protoflow.asyncapi import channels
from protoflow.asyncapi.deployment import Consumer
from protoflow.contract.policy import ResolvedDelivery, ResolvedRetry
from protoflow.contract.spec import BATCH_MESSAGES, BATCH_WAIT, Effects, MethodSpec, OnExhausted

#: Policy fields whose names are shorter here than in annotations.
_NAMES = {"initial_backoff": "initial", "max_backoff": "max", "backoff_multiplier": "multiplier"}
#: Policy fields that are factors; every other float is a number of seconds.
_FACTORS = {"backoff_multiplier", "jitter"}
#: Policy fields that are left out: a reference to a channel replaces the first one, and the
#: second one describes where values come from.
_ELSEWHERE = {"dead_letter_topic", "demands"}


def policy(method: MethodSpec, consumer: Consumer, dead_letters: str | None) -> dict[str, Any]:
    """Returns `x-protoflow` of an operation that consumes."""
    said: dict[str, Any] = {"group": consumer.group, **_leaves(consumer.policy)}
    if dead_letters is not None:
        said["deadLetter"] = channels.reference(dead_letters)
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
    """Returns `x-retry` and `x-deadLetter` of an operation that consumes.

    Args:
        method: the method.
        consumer: the method as it is deployed.
        waiting: the key of the channel in which retries wait.
        dead_letters: the key of the channel of its dead letters, if there is one.
    """
    said: dict[str, Any] = {}
    outcome, attempts = consumer.policy.on_exhausted, consumer.policy.retry.max_attempts
    # A message that blocks its lane is retried for ever; the proposal has no field for this.
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
    """Returns seconds as settings write them: `30s`, `0.5s`."""
    return f"{int(seconds)}s" if seconds == int(seconds) else f"{seconds:f}".rstrip("0") + "s"


def _leaves(policy: ResolvedDelivery | ResolvedRetry) -> dict[str, Any]:
    """Returns the values of a policy, without switches that are off and limits that are not set."""
    return {
        _NAMES.get(leaf.name, _camel(leaf.name)): _form(leaf, value)
        for leaf in fields(policy)
        if leaf.name not in _ELSEWHERE
        and (value := getattr(policy, leaf.name)) is not None
        and value is not False
    }


def _form(leaf: Field[Any], value: Any) -> Any:
    if isinstance(value, ResolvedRetry):
        return _leaves(value)
    if isinstance(value, enum.Enum):
        return value.name
    if leaf.name in _FACTORS:
        return _plain(value)
    return duration(value) if "float" in str(leaf.type) else value


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(other.capitalize() for other in others)


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
    """Rounds seconds up, because the proposal allows whole seconds only."""
    return math.ceil(seconds)


def _plain(number: float) -> float | int:
    return int(number) if number == int(number) else number
