"""The rollouts of several changes that are deployed together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from protoflow.breaking.change import Change
from protoflow.breaking.verdict import Rollout, Verdict


class Part(NamedTuple):
    """A rollout and the kinds of changes that need it."""

    rollout: Rollout
    kinds: tuple[str, ...]


def deployment(changes: Iterable[Change], scheme: str = "") -> list[Part]:
    """Returns the actions for unsafe changes: values to keep, and the rollout of the rest."""
    kept: dict[str, None] = {}
    deployed: dict[str, Rollout] = {}
    for one in changes:
        verdict, _, rollout = one.consequence(scheme)
        if rollout is Rollout.KEEP:
            kept[one.kind] = None
        elif verdict is not Verdict.SAFE:
            deployed[one.kind] = rollout
    wanted = set(deployed.values())
    # A drain replaces contradicting orders of deployment, and an order combined with a replay.
    together = wanted.pop() if len(wanted) == 1 else Rollout.DRAIN
    parts = [Part(Rollout.KEEP, tuple(kept)), Part(together, tuple(deployed))]
    return [part for part in parts if part.kinds]
