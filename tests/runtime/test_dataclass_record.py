"""Records are dataclasses in all but what they cost to declare."""

from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, asdict, dataclass, field, fields, replace
from typing import Any

import pytest
from protoflow.dataclass_record import dataclass_record


@dataclass_record
class Made:
    """A dataclass_record."""

    name: str
    tags: tuple[str, ...] = ()
    hidden: str = field(default="", repr=False)
    more: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """The same as a dataclass."""

    name: str
    tags: tuple[str, ...] = ()
    hidden: str = field(default="", repr=False)
    more: dict[str, int] = field(default_factory=dict)


def test_values_defaults_and_text_are_a_dataclass_s() -> None:
    made, compiled = Made(name="a", hidden="s"), Compiled(name="a", hidden="s")
    assert repr(made) == repr(compiled).replace("Compiled", "Made")
    assert asdict(made) == asdict(compiled)
    assert [item.name for item in fields(Made)] == [item.name for item in fields(Compiled)]
    assert Made(name="a").more is not Made(name="a").more


def test_equal_are_those_of_one_class_and_equal_values() -> None:
    assert Made(name="a") == Made(name="a") != Made(name="b")
    compiled: object = Compiled(name="a")
    assert Made(name="a") != compiled
    assert hash(Made(name="a", more=())) == hash(Made(name="a", more=()))  # type: ignore[arg-type]


def test_they_never_change_and_have_nothing_else() -> None:
    made = Made(name="a")
    for name in ("name", "other"):
        with pytest.raises(FrozenInstanceError):
            setattr(made, name, "b")
    with pytest.raises(FrozenInstanceError):
        del made.name
    assert not hasattr(made, "__dict__")


def test_changed_copies() -> None:
    made = Made(name="a", tags=("t",), more={"n": 1})
    assert replace(made, name="b") == Made(name="b", tags=("t",), more={"n": 1})
    for copied in (copy.copy(made), copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
        assert copied == made


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, r"Made\(\) lacks the argument 'name'"),
        ({"name": "a", "nam": 1}, "has no argument 'nam'"),
    ],
)
def test_arguments_that_lack_or_are_unknown(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(TypeError, match=complaint):
        Made(**given)
    with pytest.raises(TypeError):
        Made("a")  # type: ignore[call-arg]  # the mistake
