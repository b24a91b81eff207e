"""Faults: planned from the seed before a run, and named so that a run can leave some out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from protoflow.testing.simulation.choices import Choices
from protoflow.testing.simulation.profiles import Lending, Profile

#: How often each site is passed at least in a run with so many messages as a scenario has.
_CALLS = 24
#: Faults of runs: the handler fails before or after its work, takes longer than a lease, or fails
#: for this message from now on.
_RUNS = ("error", "late-error", "slow-run", "poison")
#: Faults that begin at a time and last for a while.
_TIMED = ("outage", "dead-letters-down", "stall", "clock", "deploy")
_CLIENT = ("garbage",)


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault.

    Attributes:
        site: where it happens, `billing.settle`; `time` for what begins at a time.
        at: at which occurrence of the site; in milliseconds for `time`.
        kind: what happens.
        target: the service that a fault in time meets; empty: none, or all.
    """

    site: str
    at: int
    kind: str
    target: str = ""

    def __str__(self) -> str:
        target = f":{self.target}" if self.target else ""
        return f"{self.kind}@{self.site}{target}#{self.at}"


class Faults:
    """The plan of one run: which faults happen, and which did.

    Args:
        planned: all of them.
        only: the names of those that may happen; None is all.
    """

    def __init__(self, planned: Sequence[Fault], only: Collection[str] | None = None) -> None:
        kept = [fault for fault in planned if only is None or str(fault) in only]
        self.timed = [fault for fault in kept if fault.site == "time"]
        self.happened: list[Fault] = []
        self.over = False
        self._at = {(fault.site, fault.at): fault for fault in kept if fault.site != "time"}
        self._passed: dict[str, int] = {}

    def at(self, site: str) -> Fault | None:
        """Returns the fault that happens now at a site, which is passed once more."""
        count = self._passed[site] = self._passed.get(site, 0) + 1
        fault = self._at.get((site, count))
        if fault is None or self.over:
            return None
        self.happened.append(fault)
        return fault


def plan(
    choices: Choices, profile: Profile, services: Sequence[str], faults: int, crashes: int,
    duration: float,
) -> list[Fault]:  # fmt: skip
    """Chooses the faults of a seed. Each seed has its own few kinds, so that their effects meet."""
    calls = [(call, kind) for call, kinds in profile.faults for kind in kinds]
    menu = [*calls, *(("run", kind) for kind in _RUNS), *(("time", kind) for kind in _TIMED)]
    menu += [("publish", kind) for kind in _CLIENT]
    if profile.lending is Lending.PARTITION:
        menu += [("time", "rebalance")]
    kinds = [menu[choices.whole("plan.menu", 0, len(menu) - 1)] for _ in range(4)]
    found: dict[str, Fault] = {}
    for _ in range(crashes):
        call = ("settle", "submit", "run", "fetch")[choices.whole("plan.crash", 0, 3)]
        when = ("crash-before", "crash-after")[choices.whole("plan.when", 0, 1)]
        _add(found, choices, services, call, when, duration)
    for _ in range(faults):
        call, kind = kinds[choices.whole("plan.kind", 0, len(kinds) - 1)]
        _add(found, choices, services, call, kind, duration)
    return sorted(found.values())


def _add(
    found: dict[str, Fault], choices: Choices, services: Sequence[str], call: str, kind: str,
    duration: float,
) -> None:  # fmt: skip
    service = services[choices.whole("plan.service", 0, len(services) - 1)]
    if call == "time":
        at = int(choices.between("plan.time", 0.0, duration) * 1000)
        target = service if kind in ("stall", "clock", "deploy") else ""
        fault = Fault("time", at, kind, target)
    else:
        site = "client.publish" if call == "publish" else f"{service}.{call}"
        fault = Fault(site, choices.whole("plan.at", 1, _CALLS), kind)
    found[f"{fault.site}#{fault.at}"] = fault
