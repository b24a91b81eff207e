"""The emitter of YAML, against PyYAML."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from protoflow.asyncapi import to_json, to_yaml

_TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ["", " ", "yes", "No", "~", "null", "1_000", "0x1f", "1e5", ".5", "1:30", "2020-01-01", "- a",
     "a: b", "#", "a #b", "'", '"', "\\", "a\n b\n", "\na", "a\n\n\nb", "a \nb", "a\n", "|", ">",
     "é\nü", "\x85", "\u2028", "\ufeff", "<<", "=", "30s", "0.5s", "$ref", "a\tb\nc", "---", "..."]
)  # fmt: skip
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXTS, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(_TEXTS, _VALUES, max_size=5))
@example({"a": [[], {}, [[1, [2]]], {"b": [{"c": "x\ny"}]}]})
@example({"a": 1e-07, "b": 1e22, "c": 5e-324, "d": -0.0})
@example({"a": ["x\ny\n", "x\n\ny", ["p\nq"]]})
def test_yaml_is_read_as_what_was_written(document: dict[str, Any]) -> None:
    assert yaml.safe_load(to_yaml(document)) == document
    assert json.loads(to_json(document)) == document


def test_yaml_is_written_for_people() -> None:
    document = {"a": {"$ref": "#/b"}, "c": "One.\nTwo.", "d": ["30s", "3.1.0", True], "e": {}}
    assert to_yaml(document).splitlines() == [
        "a:", '  $ref: "#/b"', "c: |-", "  One.", "  Two.", "d:", "  - 30s", '  - "3.1.0"',
        "  - true", "e: {}",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_lacks_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match=r"JSON"):
        to_yaml({"a": value})
    with pytest.raises(ValueError, match=r"JSON"):
        to_json({"a": value})
