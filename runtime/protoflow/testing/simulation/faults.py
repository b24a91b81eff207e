"""Faults, which are planned from the seed before a run. A run can leave out some of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from protoflow.testing.simulation.choices import Choices
from protoflow.testing.simulation.profiles import Lending, Profile

#: Faults are planned for occurrences of a site up to `_CALLS`. For each occurrence a fault waits
#: `_PACE` seconds; then it happens at the next call, so that slow runs meet it, too.
_CALLS, _PACE = 24, 0.5
#: The longest time between two faults of which the second should meet effects of the first.
_NEAR = 3.0
#: Call sites that every service reaches, and call sites that only some services reach.
_CERTAIN_CRASHES, _UNCERTAIN = ("settle", "run", "fetch"), ("submit", "renew", "join")
#: How many faults and crashes of a plan certainly happen. A run must have two crashes; a third is
#: planned because a process may end by itself before its crash.
_SURE_FAULTS, _SURE_CRASHES = 5, 3
#: The most messages that always fail. More would leave too few messages for later services.
_MOST_POISON = 3
#: Faults of runs: the handler fails before its work, fails after its work, takes longer than a
#: lease, or fails for this message from now on.
_RUNS = ("error", "late-error", "slow-run", "poison")
#: Faults that begin at a time and last for a while.
_TIMED = ("outage", "dead-letters-down", "stall", "clock")
_DEPLOY = ("time", "deploy")
_CLIENT = ("garbage",)


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One fault.

    Attributes:
        site: where it happens, for example `billing.settle`; `time` if it begins at a time.
        at: the occurrence of the site at which it happens, or soon after; for `time`, milliseconds.
        kind: what happens.
        target: for `time`, the service that is affected; empty: none, or all.
    """

    site: str
    at: int
    kind: str
    target: str = ""

    def __str__(self) -> str:
        target = f":{self.target}" if self.target else ""
        return f"{self.kind}@{self.site}{target}#{self.at}"


class Faults:
    """The plan of one run: which faults may happen, and which have happened.

    Args:
        planned: all faults of the seed.
        only: the names of the faults that may happen; None allows all.
        now: returns the virtual time.
    """

    def __init__(
        self, planned: Sequence[Fault], only: Collection[str] | None, now: Callable[[], float]
    ) -> None:
        kept = [fault for fault in planned if only is None or str(fault) in only]
        self.timed = [fault for fault in kept if fault.site == "time"]
        #: Whether the plan has a fault in which a process stands still.
        self.stalls = any(fault.kind == "stall" for fault in planned)
        self.happened: list[Fault] = []
        self.over = False
        self._now = now
        self._due: dict[str, list[Fault]] = {}
        for fault in sorted(kept, key=lambda fault: -fault.at):
            if fault.site != "time":
                self._due.setdefault(fault.site, []).append(fault)
        self._passed: dict[str, int] = {}

    @property
    def waiting(self) -> bool:
        """Returns whether a fault has not happened yet."""
        return bool(self.timed) or any(self._due.values())

    def at(self, site: str) -> Fault | None:
        """Counts one more call at a site; returns the fault that happens at it, or None."""
        count = self._passed[site] = self._passed.get(site, 0) + 1
        due = self._due.get(site)
        if not due or self.over or (count < due[-1].at and self._now() < due[-1].at * _PACE):
            return None
        fault = due.pop()
        self.happened.append(fault)
        return fault


class _Plan:
    """The choices so far. Half of all faults happen soon after the previous one, in its process."""

    def __init__(self, choices: Choices, services: Sequence[str], duration: float) -> None:
        self.found: dict[str, Fault] = {}
        self._choices = choices
        self._services = services
        self._duration = duration
        self._last: tuple[str, float] | None = None

    def add(self, call: str, kind: str) -> None:
        """Plans a fault."""
        if kind == "poison" and self._count(kind) == _MOST_POISON:
            kind = "error"
        service, moment = self._place(kind)
        target = ""
        if call == "time":
            site, at = "time", int(moment * 1000)
            target = service if kind in ("stall", "clock", "deploy") else ""
        else:
            site = "client.publish" if call == "publish" else f"{service}.{call}"
            at = min(max(1, round(moment / _PACE)), _CALLS)
        while f"{site}#{at}" in self.found:
            at += 1
        self.found[f"{site}#{at}"] = Fault(site, at, kind, target)

    def _place(self, kind: str) -> tuple[str, float]:
        """Chooses a process and a time in seconds."""
        choices = self._choices
        near = choices.number("plan.near") < 0.5
        if near and self._last is not None:
            service, moment = self._last
            moment += choices.between("plan.after", 0.0, _NEAR)
        else:
            service = self._services[choices.whole("plan.service", 0, len(self._services) - 1)]
            # Deploys are planned later, too, when fewer messages arrive.
            until = self._duration if kind == "deploy" else _CALLS * _PACE
            moment = choices.between("plan.moment", 0.0, until)
        self._last = service, moment
        return service, moment

    def _count(self, kind: str) -> int:
        return sum(fault.kind == kind for fault in self.found.values())


def plan(
    choices: Choices, profile: Profile, services: Sequence[str], faults: int, crashes: int,
    duration: float,
) -> list[Fault]:  # fmt: skip
    """Chooses the faults of a seed, from few kinds, so that their effects meet.

    The first crashes and faults are of kinds that certainly happen, and one fault is a deploy.
    """
    menu = _menu(profile)
    certain = [each for each in menu if each[0] not in _UNCERTAIN]
    kinds = [menu[choices.whole("plan.menu", 0, len(menu) - 1)] for _ in range(3)]
    kinds.append(certain[choices.whole("plan.certain", 0, len(certain) - 1)])
    sure = [each for each in kinds if each in certain]
    planned = _Plan(choices, services, duration)
    for number in range(faults):
        among = sure if number < _SURE_FAULTS else kinds
        chosen = among[choices.whole("plan.kind", 0, len(among) - 1)]
        planned.add(*(chosen if number else _DEPLOY))
    for number in range(crashes):
        calls = _CERTAIN_CRASHES if number < _SURE_CRASHES else (*_CERTAIN_CRASHES, "submit")
        call = calls[choices.whole("plan.crash", 0, len(calls) - 1)]
        planned.add(call, ("crash-before", "crash-after")[choices.whole("plan.when", 0, 1)])
    return sorted(planned.found.values())


def _menu(profile: Profile) -> list[tuple[str, str]]:
    """Returns the kinds of faults that a transport can have, and where they happen."""
    menu = [(call, kind) for call, kinds in profile.faults for kind in kinds]
    menu += [*(("run", kind) for kind in _RUNS), *(("time", kind) for kind in _TIMED)]
    menu += [("publish", kind) for kind in _CLIENT]
    if profile.lending is Lending.PARTITION:
        menu += [("time", "rebalance")]
    return menu
