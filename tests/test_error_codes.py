"""Every error for users has a code, and every code is used, explained and documented."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from protoflow import error_codes, errors
from protoflow.cli import explanations
from protoflow.error_codes import coded

ROOT = Path(__file__).parents[1]
SOURCES = [
    *sorted((ROOT / "runtime" / "protoflow").rglob("*.py")),
    *sorted((ROOT / "protoc_gen_protoflow").rglob("*.py")),
]
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}
CODES = {
    name: value for name, value in vars(error_codes).items() if name.isupper() and name[0] != "_"
}
CLASSES = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, errors.ProtoflowError)
}


def calls(*names: str) -> Iterator[tuple[str, ast.Call]]:
    """Every call of these functions or classes, with its place."""
    for path, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                function = node.func
                name = getattr(function, "id", getattr(function, "attr", ""))
                if name in names:
                    yield f"{path.relative_to(ROOT)}:{node.lineno}", node


def test_codes_are_in_order_and_none_is_given_twice() -> None:
    values = list(CODES.values())
    assert values == sorted(set(values))
    assert all(re.fullmatch(r"PF[1-8]\d\d", value) for value in values)


def test_every_class_has_a_code_or_gets_one_where_it_is_raised() -> None:
    without = {name for name, cls in CLASSES.items() if not cls.code} - {"_ProblemsError"}
    assert without == {"ProtoflowError"}
    bare = [
        place
        for place, call in calls("ProtoflowError")
        if "code" not in {keyword.arg for keyword in call.keywords}
    ]
    assert not bare, f"raise a class that has a code, or pass code=: {bare}"


def test_the_plugin_reports_no_error_without_a_code() -> None:
    bare = [
        place
        for place, call in calls("UserError")
        if not re.search(r"coded\(|problems\.report\(\)", ast.unparse(call))
    ]
    assert not bare


def test_every_code_is_used() -> None:
    text = "".join(path.read_text() for path in SOURCES if path.name != "error_codes.py")
    unused = [name for name in CODES if not re.search(rf"\b{name}\b", text)]
    assert not unused


def test_every_code_has_title_cause_and_fix() -> None:
    explained = explanations.load()
    assert list(explained) == list(CODES.values())
    for code, found in explained.items():
        texts = {"title": found.title, "cause": found.cause, "fix": found.fix}
        assert all(text.strip() for text in texts.values()), code
        assert [name for name, text in texts.items() if text[-1] == "."] == ["cause", "fix"], code


def test_every_code_is_a_heading_of_the_page_of_errors() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert re.findall(r"^### (PF\d+)$", page, re.M) == list(CODES.values())


def test_an_error_ends_with_its_code() -> None:
    assert str(errors.TopologyError("gone")) == "gone [PF304]"
    assert str(errors.TopologyError("gone", code=error_codes.TOPOLOGY_MISSING)) == "gone [PF305]"
    several = errors.ConfigError(["one", "two"])
    assert str(several) == "one [PF201]\ntwo [PF201]"
    assert several.problems == ("one", "two")


def test_an_error_that_repeats_another_keeps_its_code() -> None:
    cause = errors.TopologyError("gone")
    assert str(errors.PublishError(str(cause))) == "gone [PF304]"
    assert coded("gone [PF304]", "PF401") == "gone [PF304]"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a", "a [PF301]"),
        ("a [PF302]", "a [PF302]"),
        ("a: b [PF302]; c", "a: b; c [PF302]"),
        ("a: b [PF302]; c [PF303]", "a: b; c [PF303]"),
        ("a [PF302]\nb", "a [PF302]\nb [PF301]"),
        ("", " [PF301]"),
    ],
)
def test_a_text_has_one_code_at_its_end(text: str, shown: str) -> None:
    assert error_codes.coded(text, error_codes.BROKER) == shown
