"""The report about a seed that failed: the line that repeats it, and an explanation."""

from __future__ import annotations

from collections.abc import Sequence

from protoflow.counted import counted
from protoflow.testing.seeds import DEFAULTS, Seed
from protoflow.testing.simulation.faults import Fault
from protoflow.testing.simulation.trace import Trace
from protoflow.testing.simulation.world import Failure

#: The most events that a report shows.
_LINES = 40


def explain(
    seed: Seed, shrunk: Seed, failure: Failure, faults: Sequence[Fault], trace: Trace,
    divergence: str | None,
) -> str:  # fmt: skip
    """Returns the report."""
    about = f" (message {failure.message})" if failure.message else ""
    lines = [
        f"{failure.invariant}: {failure.text}{about}",
        f"  at {failure.time:.6f} s, seed {seed.number}; repeat it with",
        f"  {repeat_line(shrunk)}",
    ]
    if divergence is not None:
        lines += ["  NOT REPEATABLE: two runs of this seed differ first at", f"  {divergence}"]
    if not faults:
        lines.append("  it fails without any fault")
    else:
        count = counted(len(faults), "fault")
        lines.append(f"  with {count}{'' if shrunk.only is None else ', and with no fewer'}:")
        lines += [f"    {fault}" for fault in faults]
    events = trace.of(failure.message) if failure.message else [*trace]
    lines.append(f"  what happened to {failure.message}:" if failure.message else "  the end:")
    shown = events if len(events) <= _LINES else events[-_LINES:]
    lines += [f"  {event}" for event in shown]
    return "\n".join(lines)


def repeat_line(seed: Seed) -> str:
    """Returns the command that runs a seed again."""
    if DEFAULTS.test:
        return f"pytest '{DEFAULTS.test}' --protoflow-seed '{seed}'"
    return f"simulate(..., seeds=['{seed}'])"
