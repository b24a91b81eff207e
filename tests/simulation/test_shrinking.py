"""Shrinking: the fewest faults, then the shortest latencies; and seeds as text."""

from __future__ import annotations

from typing import Any, cast

import pytest
from protoflow.errors import ConfigError
from protoflow.testing.seeds import Seed, parse_seed
from protoflow.testing.simulation.shrinking import shrink

FAULTS = tuple(f"stall@time:mail#{number}" for number in range(9))
RUN = cast("Any", object())


def test_the_fewest_faults_are_left() -> None:
    needed = {FAULTS[2], FAULTS[7]}
    seed, run = shrink(
        Seed(3, FAULTS), lambda seed: RUN if needed <= {*(seed.only or ())} else None
    )
    assert seed == Seed(3, (FAULTS[2], FAULTS[7]), halvings=4)
    assert run is RUN


def test_shorter_latencies_may_need_fewer_faults() -> None:
    def fails(seed: Seed) -> Any:
        needed = {FAULTS[1]} if seed.halvings else {FAULTS[1], FAULTS[5]}
        return RUN if needed <= {*(seed.only or ())} and seed.halvings < 3 else None

    assert shrink(Seed(3, FAULTS), fails) == (Seed(3, (FAULTS[1],), halvings=2), RUN)


def test_what_does_not_fail_is_not_shrunk() -> None:
    assert shrink(Seed(3, FAULTS), lambda _: None) == (Seed(3, FAULTS), None)


@pytest.mark.parametrize("text", ["7", "7/4", "7~", "7~flap@mail.fetch#2", "7/16~a@b#1,c@d#2"])
def test_a_seed_is_what_its_text_says(text: str) -> None:
    assert str(parse_seed(text)) == text


@pytest.mark.parametrize("text", ["", "x", "7/3", "7/", "-1", "1" * 19])
def test_what_is_no_seed_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="seed"):
        parse_seed(text)
