"""The books of a handler: plain counters, kept by the runtime."""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(slots=True)
class HandlerStats:
    """What became of messages and runs since the start of this process.

    Attributes:
        handled: messages whose handler returned.
        failed_runs: runs that failed, each counted.
        retried: failed runs that were, or will be, repeated.
        dead_lettered: messages that were given up and confirmed in the dead letters.
        skipped: messages acknowledged unhandled because the handler said so.
        dropped: messages given up and acknowledged, as `on_exhausted: DROP` says.
        unhandled: messages of types that nobody handles.
        tombstones: messages without payload that were skipped.
        published: outputs that were confirmed.
        lost: settlements refused because the lease was lost.
        unknown: settlements of which nobody knows whether the broker has them.
        released: messages given back unfinished.
    """

    handled: int = 0
    failed_runs: int = 0
    retried: int = 0
    dead_lettered: int = 0
    skipped: int = 0
    dropped: int = 0
    unhandled: int = 0
    tombstones: int = 0
    published: int = 0
    lost: int = 0
    unknown: int = 0
    released: int = 0

    def as_dict(self) -> dict[str, int]:
        """The counters by name."""
        return {counter.name: getattr(self, counter.name) for counter in fields(self)}
