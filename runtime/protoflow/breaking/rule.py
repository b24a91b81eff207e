"""The rule for a kind of change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from protoflow.breaking.verdict import Rollout, Verdict


class Consequence(NamedTuple):
    """The consequence of a kind of change.

    Attributes:
        verdict: the class of the effect.
        effect: what happens during a rolling deployment, or why nothing happens.
        rollout: the rollout that avoids the effect.
    """

    verdict: Verdict
    effect: str
    rollout: Rollout


class Rule(NamedTuple):
    """A kind of change.

    Attributes:
        title: the change in words.
        usual: the consequence on most transports.
        on: other consequences, by the scheme of the transport.
    """

    title: str
    usual: Consequence
    on: Mapping[str, Consequence] = {}

    def consequence(self, scheme: str) -> Consequence:
        """Returns the consequence on a transport; "" means any transport."""
        return self.on.get(scheme, self.usual)


def safe(title: str, effect: str, on: Mapping[str, Consequence] | None = None) -> Rule:
    """Returns a rule for a safe change."""
    return Rule(title, Consequence(Verdict.SAFE, effect, Rollout.ANY), on or {})


def consumers_first(effect: str) -> Consequence:
    """Returns a rule for a change that is safe if consumers are deployed first."""
    return Consequence(Verdict.CONSUMERS_FIRST, effect, Rollout.CONSUMERS_FIRST)


def drain(effect: str) -> Consequence:
    """Returns a rule for a change before which the old version must handle its messages."""
    return Consequence(Verdict.DRAIN, effect, Rollout.DRAIN)


def loses(effect: str, rollout: Rollout) -> Consequence:
    """Returns a rule for a change that loses messages."""
    return Consequence(Verdict.LOSES_MESSAGES, effect, rollout)


def loses_order(effect: str, rollout: Rollout) -> Consequence:
    """Returns a rule for a change that loses order."""
    return Consequence(Verdict.LOSES_ORDER, effect, rollout)
