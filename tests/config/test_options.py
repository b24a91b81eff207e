"""One dataclass, one parser, all mistakes at once."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import pytest
from protoflow.config.options import parse_duration, parse_options
from protoflow.config.secret import Secret
from protoflow.errors import ConfigError


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    color: Color = Color.RED
    name: str = ""
    count: int = 1
    wait: float = 1.0
    lazy: bool = False
    token: Secret | None = None
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("count must not be below 0")


def parse(query: dict[str, str] | None = None, **options: Any) -> Options:
    return parse_options(Options, query or {}, options, "tin")


def test_defaults() -> None:
    assert parse() == Options()


def test_every_type_from_a_url() -> None:
    options = parse(
        {
            "color": "Blue",
            "name": "n",
            "count": "3",
            "wait": "250ms",
            "lazy": "yes",
            "token": "s3cret",
            "hosts": "a, b",
            "ports": "1,2",
        }
    )
    assert options == Options(
        color=Color.BLUE,
        name="n",
        count=3,
        wait=0.25,
        lazy=True,
        token=Secret("s3cret"),
        hosts=("a", "b"),
        ports=(1, 2),
    )


def test_every_type_from_a_config() -> None:
    options = parse(color=Color.BLUE, wait=2, lazy=True, token=Secret("x"), hosts=["a"], ports=(1,))
    assert options == Options(
        color=Color.BLUE, wait=2.0, lazy=True, token=Secret("x"), hosts=("a",), ports=(1,)
    )


def test_the_url_goes_before_the_config() -> None:
    assert parse({"count": "2"}, count=1).count == 2


def test_all_mistakes_at_once_and_no_secret() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(
            {"colour": "red", "count": "many", "lazy": "perhaps", "wait": "soon"},
            color="green",
            token=7,
            name=3,
            hosts=5,
        )
    problems = caught.value.problems
    assert len(problems) == 8
    assert all(problem.startswith("transport: tin: ") for problem in problems)
    text = str(caught.value)
    assert "unknown option 'colour'; did you mean color? (known: color, count, " in text
    assert "option color: must be one of red, blue" in text
    assert "option count: must be a whole number" in text
    for value in ("many", "perhaps", "soon", "green"):
        assert value not in text


def test_values_that_contradict_each_other() -> None:
    with pytest.raises(ConfigError, match="transport: tin: count must not be below 0"):
        parse(count=-1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("1.5", 1.5),
        ("250ms", 0.25),
        ("30s", 30),
        ("5m", 300),
        ("1h", 3600),
        ("1h30m", 5400),
        ("7d", 604800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "-1", "1w", "1 s 2", "nan", "inf", "1h30"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="must be a number or a duration"):
        parse_duration(text)
