"""What was published, what became of it, and whether that is what was promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar


@dataclass
class Verdict:
    """The row of one run."""

    broker: str
    fault: str
    published: int = 0
    handled: int = 0
    dead_lettered: int = 0
    lost: int = 0
    duplicates: int = 0
    order_violations: int = 0
    wrong_attempts: int = 0
    seconds: float = 0.0
    ready: bool = True
    events: int = 0
    disagreements: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)

    HEAD: ClassVar = (
        "broker", "fault", "published", "handled", "dead-lettered", "lost", "duplicates",
        "order violations", "events", "disagreements", "seconds",
    )  # fmt: skip

    def row(self) -> tuple[str, ...]:
        """The cells of the table."""
        counts = (self.published, self.handled, self.dead_lettered, self.lost, self.duplicates)
        return (
            self.broker,
            self.fault,
            *(f"{count:,}" for count in counts),
            str(self.order_violations),
            f"{self.events:,}",
            str(len(self.disagreements)),
            f"{self.seconds:.0f}",
        )


def judge(
    verdict: Verdict, published: dict[str, str], log: Path, dead_letters: Iterable[str]
) -> Verdict:
    """Fills the verdict.

    Args:
        verdict: of this run.
        published: the mode of every confirmed message, by id `key-seq`.
        log: a line `key seq attempt pid` for every message handled.
        dead letters: the ids of the dead letters.
    """
    lines = [line.split() for line in log.read_text().splitlines()]
    counts = Counter(f"{key}-{seq}" for key, seq, *_ in lines)
    dead = set(dead_letters)
    missing = published.keys() - counts.keys() - dead
    last: dict[str, int] = {}
    seen: set[str] = set()
    for key, seq, *_ in lines:
        name = f"{key}-{seq}"
        # A copy of what was handled before says nothing about order: its settlement was lost.
        if name in seen:
            continue
        seen.add(name)
        if int(seq) < last.get(key, -1):
            verdict.order_violations += 1
            verdict.examples.append(f"{name} after {key}-{last[key]}")
        last[key] = int(seq)
    verdict.published = len(published)
    verdict.handled = len(counts)
    verdict.dead_lettered = len(dead)
    verdict.lost = len(missing)
    verdict.duplicates = sum(counts.values()) - len(counts)
    verdict.wrong_attempts = sum(
        1
        for key, seq, attempt, _ in lines
        if published.get(f"{key}-{seq}") == "once" and int(attempt) not in (2, 3)
    )
    verdict.examples += [f"lost {name}" for name in sorted(missing)[:5]]
    return verdict
