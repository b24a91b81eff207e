"""Seeds as text: a number, optionally with the faults and latencies that remain."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from protoflow.error_codes import SIMULATION
from protoflow.errors import ConfigError

_SEED = re.compile(r"([0-9]{1,18})(?:/(2|4|8|16))?(?:~(.*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Seed:
    """One seed, which may be shrunk.

    Attributes:
        number: determines all random choices.
        only: the names of the faults that may happen; None allows every planned fault.
        halvings: how often all latencies are halved.
    """

    number: int
    only: tuple[str, ...] | None = None
    halvings: int = 0

    def __str__(self) -> str:
        number = f"{self.number}/{2**self.halvings}" if self.halvings else str(self.number)
        return number if self.only is None else f"{number}~{','.join(self.only)}"


def parse_seed(text: str | int) -> Seed:
    """Parses a seed. Raises ConfigError."""
    found = _SEED.fullmatch(str(text).strip())
    if found is None:
        raise ConfigError(
            f"seed {text!r}: expected a number, optionally with /2, /4, /8 or /16, and optionally "
            "with ~ and names of faults",
            code=SIMULATION,
        )
    number, divisor, faults = found.groups()
    only = None if faults is None else tuple(name for name in faults.split(",") if name)
    return Seed(int(number), only, int(divisor or 1).bit_length() - 1)


@dataclass
class Defaults:
    """Defaults of `simulate`, which the pytest plugin sets.

    Attributes:
        seeds: the number of seeds.
        seed: a single seed that runs instead.
        test: the name of the running test, which the report of a failure prints.
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
