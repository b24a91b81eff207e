"""Seeds as text: a number and optionally the faults of its plan that may happen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from protoflow.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Seed:
    """A seed.

    Attributes:
        number: determines all random choices.
        only: the names of the faults that may happen; None is all that the seed plans.
    """

    number: int
    only: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return str(self.number) if self.only is None else f"{self.number}~{','.join(self.only)}"


def parse_seed(text: str | int) -> Seed:
    """Returns the seed that a text names. Raises ConfigError."""
    number, tilde, faults = str(text).strip().partition("~")
    if not number.isdecimal() or len(number) > 18:
        raise ConfigError(f"seed {text!r}: not a number, or a number and ~ and names of faults")
    only = tuple(name for name in faults.split(",") if name) if tilde else None
    return Seed(int(number), only)


@dataclass
class Defaults:
    """Defaults of `simulate`, which the pytest plugin sets.

    Attributes:
        seeds: how many seeds are run.
        seed: the one seed to run instead.
        test: the test that runs, for the line that repeats a failure.
    """

    seeds: int = 100
    seed: Seed | None = None
    test: str = ""


DEFAULTS = Defaults()


def seeds_of(seeds: int | Sequence[int | str] | None) -> Sequence[Seed]:
    """Returns the seeds to run."""
    if DEFAULTS.seed is not None:
        return (DEFAULTS.seed,)
    if seeds is None or isinstance(seeds, int):
        return [Seed(number) for number in range(DEFAULTS.seeds if seeds is None else seeds)]
    return [parse_seed(each) for each in seeds]
