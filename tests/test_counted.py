"""counted: one thing, or several."""

from __future__ import annotations

from protoflow.counted import counted


def test_one_is_singular() -> None:
    assert [counted(count, "message") for count in (0, 1, 2)] == [
        "0 messages", "1 message", "2 messages",
    ]  # fmt: skip
    assert [counted(count, "entry", "entries") for count in (1, 2)] == ["1 entry", "2 entries"]
