"""Text from messages in logs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from protoflow.codecs.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("01J-order", "01J-order"),
        ("Bücher 本", "Bücher 本"),
        ("a\nERROR forged", "a\\nERROR forged"),
        ("\x1b[2J\r\x00", "\\x1b[2J\\r\\x00"),
        ("a\u2028b\u202ec\x85", "a\\u2028b\\u202ec\\x85"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_long_text_is_cut() -> None:
    assert printable("x" * 300, 10) == "xxxxxxxxxx..."
    assert printable("\n" * 300, 2) == "\\n\\n..."


# Any code point, lone surrogates included.
@given(st.text(st.characters(codec=None)), st.integers(0, 50))
def test_any_text_is_one_line_that_can_be_written(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown.encode()) <= limit * 10 + 3
