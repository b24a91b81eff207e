"""What a rule says of a kind of change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from protoflow.breaking.verdict import Rollout, Verdict


class Consequence(NamedTuple):
    """What a kind of change does.

    Attributes:
        verdict: its class.
        effect: what happens in a careless rollout, or why nothing does.
        rollout: how to avoid it.
    """

    verdict: Verdict
    effect: str
    rollout: Rollout


class Rule(NamedTuple):
    """A kind of change.

    Attributes:
        title: the change in words.
        usual: what it does.
        on: what it does on some transports instead, by scheme.
    """

    title: str
    usual: Consequence
    on: Mapping[str, Consequence] = {}

    def consequence(self, scheme: str) -> Consequence:
        """What the change does on a transport; "" is any."""
        return self.on.get(scheme, self.usual)


def safe(title: str, effect: str, on: Mapping[str, Consequence] | None = None) -> Rule:
    """A rule for a change that is safe."""
    return Rule(title, Consequence(Verdict.SAFE, effect, Rollout.ANY), on or {})


def consumers_first(effect: str) -> Consequence:
    """Safe if consumers are deployed first."""
    return Consequence(Verdict.CONSUMERS_FIRST, effect, Rollout.CONSUMERS_FIRST)


def drain(effect: str) -> Consequence:
    """The old version must handle what is there."""
    return Consequence(Verdict.DRAIN, effect, Rollout.DRAIN)


def loses(effect: str, rollout: Rollout) -> Consequence:
    """Messages are lost."""
    return Consequence(Verdict.LOSES_MESSAGES, effect, rollout)


def loses_order(effect: str, rollout: Rollout) -> Consequence:
    """Order is lost."""
    return Consequence(Verdict.LOSES_ORDER, effect, rollout)
